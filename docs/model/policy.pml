/* The parts of the operations: who is granted what. The names are those of _cpool/policy.pyx. */

inline queue_head(ep, out)
{
	out = NONE;
	for (i : 0 .. USERS - 1) {
		if
		:: IN_QUEUE(i, ep) && (out == NONE || rank[i] < rank[out]) -> out = i
		:: else
		fi
	}
}

inline queue_off_duty(ep, out)
{
	out = NONE;
	for (i : 0 .. USERS - 1) {
		if
		:: IN_QUEUE(i, ep) && !on_duty[i] && (out == NONE || rank[i] < rank[out]) -> out = i
		:: else
		fi
	}
}

inline ring_head(which, out)
{
	if
	:: ring[0] == which && ring[1] == which -> out = first
	:: ring[0] == which && ring[1] != which -> out = 0
	:: ring[0] != which && ring[1] == which -> out = 1
	:: else -> out = NONE
	fi
}

inline leave_ring(ep)
{
	ring[ep] = 0;
	first = 0;
	bypassed[ep] = 0
}

inline ring_append(ep, which)
{
	ring[ep] = which;
	first = (ring[1 - ep] == which -> 1 - ep : 0)
}

inline idle_nearest(out)	/* of all endpoints */
{
	if
	:: place[0] == IDLE && place[1] == IDLE -> out = older
	:: place[0] == IDLE && place[1] != IDLE -> out = 0
	:: place[0] != IDLE && place[1] == IDLE -> out = 1
	:: else -> out = NONE
	fi
}

inline idle_first(ep, out)
{
	if
	:: place[0] == IDLE && endpoint[0] == ep && !(older == 1 && place[1] == IDLE && endpoint[1] == ep) -> out = 0
	:: else ->
		if
		:: place[1] == IDLE && endpoint[1] == ep -> out = 1
		:: else -> out = NONE
		fi
	fi
}

#ifndef COUNT_PASSES
#define see_pass(ep) skip
#define forget_passes(ep) skip
#define forget_passes_of(u)
#else
#define forget_passes_of(u) passed[u] = 0;

inline see_pass(ep)	/* others are served; those do not mind to whom a slot is promised, the first ones of the queue */
{
	for (i : 0 .. USERS - 1) {
		passed[i] = passed[i] + (IN_QUEUE(i, ep) && ring[ep] == NEEDY && AHEAD(i, ep) >= evicting[ep] -> 1 : 0)
	}
}

inline forget_passes(ep)	/* it was its turn */
{
	for (i : 0 .. USERS - 1) {
		passed[i] = (at[i] == ep -> 0 : passed[i])
	}
}
#endif

inline check_first(who, ep)	/* first come, first served */
{
	for (i : 0 .. USERS - 1) {
		assert(!IN_QUEUE(i, ep) || i == who || rank[i] > rank[who])
	}
}

inline lose_place(who)	/* the numbers of those who came later move up */
{
	for (i : 0 .. USERS - 1) {
		rank[i] = (present[who] && present[i] && rank[i] > rank[who] -> rank[i] - 1 : rank[i])
	}
	present[who] = 0;
	rank[who] = 0
}

/* A ticket that will not wait again needs no place in the order, no wake-up and no duty. */
#ifdef NOTHING_DIES
#define waits_no_more(who) lose_place(who); on_duty[who] = 0
#define LOOKS_NO_MORE(u) released[u] = 0
#define DOES_NOT_CHECK skip
#define MOST_PASSES (BYPASS + TOTAL)
#else
#define MOST_PASSES (2 * BYPASS + TOTAL)
#define DOES_NOT_CHECK checked = 1
#define waits_no_more(who) skip
#define LOOKS_NO_MORE(u) skip
#endif

inline lend(rec, whom)
{
	assert(owner[rec] == NONE);
	place[rec] = LENT;
	older = 0;
	owner[rec] = whom
}

inline grant_connection(who, rec)
{
	assert(state[who] == WAITING && granted[who] == NONE);
	check_first(who, at[who]);
	lend(rec, who);
	granted[who] = rec;
	state[who] = CONNECTION;
	waits_no_more(who)
}

inline grant_slot(who, ep)
{
	assert(state[who] == WAITING);
	check_first(who, ep);
	reserved[ep]++;
	total++;
	state[who] = SLOT;
	waits_no_more(who)
}

inline pop_waiter(who)
{
	forget_passes(at[who]);
	see_pass(1 - at[who]);
	queued[who] = 0;
	wake(who)
}

inline doom(rec, who)	/* it has left its list; `who` is to dispose of it */
{
	place[rec] = DISPOSING;
	older = 0;
	reserved[endpoint[rec]]++;
	owner[rec] = who
}

inline promise(rec, whom)
{
	beneficiary[rec] = whom;
	evicting[whom]++;
	own_evicting[whom] = own_evicting[whom] + (whom == endpoint[rec] -> 1 : 0)
}

inline evict(rec, whom)
{
	queue_off_duty(whom, found);
	assert(found != NONE && victim[found] == NONE && owner[rec] == NONE);
	doom(rec, found);
	promise(rec, whom);
	on_duty[found] = 1;
	victim[found] = rec;
	forget_passes(whom);
	wake(found)
}

inline needs(ep)
{
	room = MAX - COUNT(ep) + own_evicting[ep];
	need = (total < TOTAL -> 0 : LEAST(WAITERS(ep), room) - evicting[ep])
}

inline settle(ep)
{
	new_ring = 0;
	if
	:: WAITERS(ep) > 0 && !closed ->
		do
		:: queue_off_duty(ep, o);
			needs(ep);
			if
			:: o == NONE || need <= 0 -> break
			:: else
			fi;
			idle_nearest(b);
			if
			:: b == NONE -> new_ring = NEEDY; break
			:: else -> evict(b, ep)
			fi
		od;
		new_ring = (new_ring == 0 && COUNT(ep) < MAX -> COVERED : new_ring)
	:: else
	fi;
	if
	:: ring[ep] != new_ring ->
		leave_ring(ep);
		if
		:: new_ring != 0 -> ring_append(ep, new_ring)
		:: else
		fi
	:: else
	fi
}

inline seek(who, ep)
{
	if
	:: closed -> state[who] = CLOSED; waits_no_more(who)
	:: else ->
		state[who] = WAITING;
		idle_first(ep, r);
		if
		:: r != NONE -> grant_connection(who, r)
		:: r == NONE && COUNT(ep) < MAX && total < TOTAL -> grant_slot(who, ep)
		:: else -> queued[who] = 1; next_to_settle = ep
		fi
	fi
}

inline restore(rec, out)	/* out: rec if it is to be disposed of by whoever had it, otherwise NONE */
{
	out = NONE;
	e = endpoint[rec];
	ring_head(NEEDY, rival);
	if
	:: closed -> doom(rec, owner[rec]); out = rec
	:: else ->
		owner[rec] = NONE;
		place[rec] = FREE;	/* in no list for the moment; before the operation is over it counts again */
		queue_head(e, t);
		if
		:: t != NONE && (rival == NONE || rival == e || bypassed[rival] < BYPASS) ->
			if
			:: rival == e -> leave_ring(e)
			:: rival != e && rival != NONE ->
#ifndef BUG_NOBODY_COUNTS_WHO_IS_BYPASSED
				bypassed[rival]++
#endif
			:: else
			fi;
			pop_waiter(t);
			grant_connection(t, rec);
			next_to_settle = e
		:: t == NONE && rival == NONE ->
			place[rec] = IDLE;
			older = (place[1 - rec] == IDLE -> 1 - rec : 0)
		:: else ->
			evict(rec, rival);
			leave_ring(rival);
			next_to_settle = rival
		fi
	fi
}

inline choose_taker(ep, whom)
{
	ring_head(NEEDY, rival);
	if
	:: whom != NONE && WAITERS(whom) > 0 && COUNT(whom) < MAX -> taker = whom
	:: else ->
		if
		:: WAITERS(ep) == 0 || COUNT(ep) >= MAX ->
#ifdef BUG_A_FREE_SLOT_IS_NOT_OFFERED_TO_OTHERS
			taker = NONE
#else
			taker = rival;
			if
			:: rival == NONE -> ring_head(COVERED, taker)
			:: else
			fi
#endif
		:: else ->
			taker = ep;
			if
			:: rival != NONE && rival != ep ->
				if
				:: bypassed[rival] >= BYPASS -> taker = rival
				:: else ->
#ifndef BUG_NOBODY_COUNTS_WHO_IS_BYPASSED
					bypassed[rival]++
#endif
				fi
			:: else
			fi
		fi
	fi
}

inline free_slot(ep, whom)
{
	reserved[ep]--;
	total--;
	if
	:: closed && total == 0 && joined -> wake(CLOSER)
	:: closed && !(total == 0 && joined)
	:: else ->
		choose_taker(ep, whom);
		if
		:: taker != NONE ->
			queue_head(taker, t);
			pop_waiter(t);
			grant_slot(t, taker);
			leave_ring(taker);
			next_to_settle = taker
		:: else
		fi;
		/* the taker first, then the endpoint, then the beneficiary: two of them are the same */
		then_settle = (ep != taker -> ep : (whom != taker -> whom : NONE));
		if
		:: taker == NONE -> next_to_settle = ep; then_settle = (whom != ep -> whom : NONE)
		:: else
		fi
	fi
}

/* The operations, each of which is one step, and what holds after each. The names are those of _cpool/core.pyx. */

inline check_endpoint(ep)
{
	assert(COUNT(ep) <= MAX);
	assert(reserved[ep] == DOOMED(ep) + CREATING(ep));
	assert(evicting[ep] == PROMISED(ep) && own_evicting[ep] == PROMISED_OWN(ep));
	assert(!closed || WAITERS(ep) == 0);
	if
	:: WAITERS(ep) > 0 ->	/* nobody waits while something could serve them: a slot, an idle one, one of others */
		assert(COUNT(ep) == MAX || total == TOTAL);
		idle_first(ep, b);
		assert(b == NONE);
		idle_nearest(b);
		queue_off_duty(ep, o);
		needs(ep);
		assert(b == NONE || o == NONE || need <= 0);
		assert((ring[ep] == NEEDY) == (o != NONE && need > 0));
		assert((ring[ep] == COVERED) == (COUNT(ep) < MAX && ring[ep] != NEEDY))
	:: else -> assert(ring[ep] == 0)
	fi
}

inline check_record(rec)
{
	assert((place[rec] == LENT || place[rec] == DISPOSING) == (owner[rec] != NONE));
	assert(beneficiary[rec] == NONE || place[rec] == DISPOSING)
}

inline check_user(u)
{
#ifndef BUG_A_WITHDRAWN_TICKET_STAYS_IN_THE_QUEUE	/* what comes of it is to be found, not the mistake itself */
	assert(!queued[u] || state[u] == WAITING);
#endif
	assert(granted[u] == NONE || (place[granted[u]] == LENT && owner[granted[u]] == u));
	assert(victim[u] == NONE || (place[victim[u]] == DISPOSING && owner[victim[u]] == u));
#ifdef COUNT_PASSES
	assert(passed[u] <= MOST_PASSES)	/* see ../model.md */
#endif
}

/* The end of every operation: settle those endpoints that it says, and check everything. */
inline finish()
{
	do
	:: next_to_settle != NONE ->
		settle(next_to_settle);
		next_to_settle = then_settle;
		then_settle = NONE
	:: else -> break
	od;
	assert(total == COUNT(0) + COUNT(1) && total <= TOTAL);
	for (e : 0 .. 1) { check_endpoint(e); check_record(e) }
	for (t : 0 .. USERS - 1) { check_user(t) }
	t = 0	/* a d_step must not end with a loop */
}

inline begin()
{
	next_to_settle = NONE;
	then_settle = NONE
}

/* ---- the operations */

inline request(who)
{
	d_step {
		begin();
		rank[who] = present[0] + present[1] + present[2];
		present[who] = 1;
		seek(who, at[who]);
		finish()
	}
}

inline replace(who)
{
	d_step {
		begin();
		r = granted[who];
		granted[who] = NONE;
		assert(place[r] == LENT && victim[who] == NONE);
		doom(r, who);
		promise(r, at[who]);
		victim[who] = r;
		on_duty[who] = 1;
		seek(who, at[who]);
		finish()
	}
}

inline withdraw(who, answer)
{
	d_step {
		begin();
		answer = (state[who] == WAITING);
		if
		:: answer ->
			state[who] = NOTHING;
			forget_passes_of(who)
#ifndef BUG_A_WITHDRAWN_TICKET_STAYS_IN_THE_QUEUE
			queued[who] = 0;
#endif
			next_to_settle = at[who];
			waits_no_more(who)
		:: else
		fi;
		finish()
	}
}

inline rest(who)
{
	d_step {
		begin();
		on_duty[who] = 0;
		next_to_settle = (state[who] == WAITING -> at[who] : NONE);
		finish()
	}
}

inline fulfil(who, out)	/* out: as of restore */
{
	d_step {
		begin();
		assert(state[who] == SLOT);
		r = (place[0] == FREE -> 0 : 1);
		assert(place[r] == FREE && owner[r] == NONE);
		endpoint[r] = at[who];
		if
		:: closed ->
			place[r] = DISPOSING;
			owner[r] = who;
			state[who] = CLOSED;
			out = r
		:: else ->
			reserved[at[who]]--;
			lend(r, who);
			granted[who] = r;
			state[who] = CONNECTION;
			out = NONE
		fi;
		finish()
	}
}

inline fail(who)
{
	d_step {
		begin();
		assert(state[who] == SLOT);
		state[who] = NOTHING;
		free_slot(at[who], NONE);
		finish()
	}
}

inline give_back(who, rec, out)
{
	d_step {
		begin();
		r = rec;
		assert(place[r] == LENT && owner[r] == who);
		restore(r, out);
		finish()
	}
}

inline discard(who, rec)
{
	d_step {
		begin();
		assert(place[rec] == LENT && owner[rec] == who);
		doom(rec, who);
		finish()
	}
}

inline disposed(who, rec)
{
	d_step {
		begin();
		r = rec;
		assert(place[r] == DISPOSING && owner[r] == who);	/* once, by whoever was told to */
		if
		:: who < USERS -> on_duty[who] = 0
		:: else
		fi;
		e = endpoint[r];
		ben = beneficiary[r];
		place[r] = FREE;
		endpoint[r] = 0;
		beneficiary[r] = NONE;
		owner[r] = NONE;
		if
		:: ben != NONE ->
			evicting[ben]--;
			own_evicting[ben] = own_evicting[ben] - (ben == e -> 1 : 0)
		:: else
		fi;
		free_slot(e, ben);
		finish()
	}
}

inline close()
{
	d_step {
		begin();
		closed = 1;
		leave_ring(0);
		leave_ring(1);
		for (t : 0 .. USERS - 1) {
			forget_passes_of(t)
			if
			:: queued[t] ->
				queued[t] = 0;
				state[t] = CLOSED;
#ifndef BUG_CLOSE_TELLS_NOBODY
				wake(t);
#endif
				waits_no_more(t)
			:: else
			fi
		}
		finish()
	}
}

inline next_idle(out)
{
	d_step {
		begin();
		idle_nearest(out);
		if
		:: out != NONE -> doom(out, CLOSER)
		:: else
		fi;
		finish()
	}
}

/*
 * Parking and hand-over: who waits for a connection, who is granted which, and who wakes whom.
 *
 * Three users who wait, two endpoints, two connections in total. What is modelled, what is left out, what it proves and
 * how to run it: ../model.md. The names are those of _cpool/lock.pyx and threading/pool.py.
 */

#ifndef MAX
#define MAX 2		/* max_size */
#endif
#define TOTAL 2		/* total_max_size */
#ifndef BYPASS
#define BYPASS 1	/* bypass_limit; 16 or more in the code, where it is just a number too */
#endif
#ifndef ROUNDS
#define ROUNDS 1	/* how often each user acquires; 0: for ever */
#endif
#ifndef HOMES
#define HOMES 4		/* bit u: the endpoint at which user u acquires */
#endif
#ifndef LOANS
#define LOANS 2		/* bit r: the endpoint of the connection r, which exists at the start */
#endif
#ifndef PATIENT
#define PATIENT 1	/* bit u: user u has no timeout, and is not cancelled */
#endif
#define IS_PATIENT(u) ((PATIENT >> (u)) & 1)

#define USERS 3
#define CLOSER 3	/* who closes the pool, and waits for it to be empty */
#define STRANGER 4	/* who has the connections that exist at the start */
#define WORKER 5	/* who disposes of what is left to it */
#define NONE 9

/* of a ticket */
#define NOTHING 0
#define WAITING 1
#define CONNECTION 2
#define SLOT 3
#define CLOSED 4

/* of a record; FREE is a place for one */
#define FREE 0
#define IDLE 1
#define LENT 2
#define DISPOSING 3

/* rings */
#define NEEDY 1
#define COVERED 2

/* -- tickets, one for each user */
byte state[USERS];
byte at[USERS];			/* the endpoint */
bool queued[USERS];
byte rank[USERS];		/* order of arrival among those who have tickets: makes the queues out of the tickets */
bool present[USERS];		/* has a ticket */
byte granted[USERS] = NONE;	/* the record of the connection granted */
byte victim[USERS] = NONE;
bool on_duty[USERS];
#ifdef COUNT_PASSES
byte passed[USERS];		/* for the assertions only: hand-overs to the other endpoint that it had to see */
#endif

/* -- records: as many as there can be connections */
byte place[TOTAL];
bit endpoint[TOTAL];
byte beneficiary[TOTAL] = NONE;
byte owner[TOTAL] = NONE;	/* for the assertions: who uses it, or is to dispose of it. WORKER: the worker's queue */
bit older;			/* of two idle ones: which one's deadline is nearer */

/* -- endpoints, and the pool */
byte reserved[2];
byte evicting[2];
byte own_evicting[2];
byte ring[2];
byte bypassed[2];
bit first;			/* of two endpoints in the same ring */
byte total;
bool closed;
bool joined;			/* the closer is in the queue of those who wait for the pool to be empty */

/* -- Parker: a lock that is held while there is no wake-up; several wake-ups are one */
bool released[CLOSER + 1];
#ifndef WAKES_AT_ONCE
byte to_wake;			/* bit u: a wake-up is on its way */
#endif
#ifdef BUG_A_WAKE_UP_BEFORE_THE_SLEEP_IS_LOST
bool asleep[CLOSER + 1];
#endif

byte finished;			/* users that have acquired as often as they were to */

/* of one step only, so no part of the state */
hidden byte i, t, r, e, o, b, ben, taker, rival, found, new_ring, next_to_settle, then_settle;
hidden short need, room;

#define LISTED(rec, ep) ((place[rec] == IDLE || place[rec] == LENT) && endpoint[rec] == (ep))
#define COUNT(ep) (LISTED(0, ep) + LISTED(1, ep) + reserved[ep])
#define IN_QUEUE(u, ep) (queued[u] && at[u] == (ep))
#define WAITERS(ep) (IN_QUEUE(0, ep) + IN_QUEUE(1, ep) + IN_QUEUE(2, ep))
#define IS_AHEAD(v, u, ep) (IN_QUEUE(v, ep) && rank[v] < rank[u])
#define AHEAD(u, ep) (IS_AHEAD(0, u, ep) + IS_AHEAD(1, u, ep) + IS_AHEAD(2, u, ep))
#define IS_PROMISED(rec, ep) (place[rec] == DISPOSING && beneficiary[rec] == (ep))
#define PROMISED(ep) (IS_PROMISED(0, ep) + IS_PROMISED(1, ep))
#define PROMISED_OWN(ep) ((IS_PROMISED(0, ep) && endpoint[0] == (ep)) + (IS_PROMISED(1, ep) && endpoint[1] == (ep)))
#define DOOMED(ep) ((place[0] == DISPOSING && endpoint[0] == (ep)) + (place[1] == DISPOSING && endpoint[1] == (ep)))
#define CREATES(u, ep) (state[u] == SLOT && at[u] == (ep))
#define CREATING(ep) (CREATES(0, ep) + CREATES(1, ep) + CREATES(2, ep))
#define LEAST(x, y) ((x) < (y) -> (x) : (y))

/* ---- waking and sleeping: lock.pyx. Waking comes after the operation */

inline unpark(who)
{
#ifdef BUG_A_WAKE_UP_BEFORE_THE_SLEEP_IS_LOST
	released[who] = released[who] | asleep[who]
#else
	released[who] = 1
#endif
}

#ifdef WAKES_AT_ONCE
#define wake(who) unpark(who)
#else
#define wake(who) to_wake = to_wake | (1 << (who))

/* All those who did an operation that wakes somebody and have not done so yet. */
proctype waker()
{
end:	do
	:: d_step { to_wake & 1 -> to_wake = to_wake & ~1; unpark(0); i = 0 }
	:: d_step { to_wake & 2 -> to_wake = to_wake & ~2; unpark(1); i = 0 }
	:: d_step { to_wake & 4 -> to_wake = to_wake & ~4; unpark(2); i = 0 }
	:: d_step { to_wake & 8 -> to_wake = to_wake & ~8; unpark(CLOSER); i = 0 }
	od
}
#endif

#ifdef BUG_A_WAKE_UP_BEFORE_THE_SLEEP_IS_LOST
#define FALL_ASLEEP(u) asleep[u] = 1
#define WAKE_UP(u) asleep[u] = 0
#else
#define FALL_ASLEEP(u) skip
#define WAKE_UP(u) skip
#endif

#include "policy.pml"
#include "core.pml"

/* ---- the users: threading/pool.py */

inline end_ticket(who)	/* it is forgotten: no operation */
{
	d_step {
		lose_place(who);
		state[who] = NOTHING;
		granted[who] = NONE;
		victim[who] = NONE;
		on_duty[who] = 0;
		released[who] = 0;
#ifndef WAKES_AT_ONCE
		to_wake = to_wake & ~(1 << who);	/* the next ticket has a Parker of its own */
#endif
		t = 0
	}
}

inline leave_to_worker(rec)
{
	owner[rec] = WORKER;
	rec = NONE
}

inline leave_to_worker_unless_kept(rec)
{
	if
	:: rec != NONE -> leave_to_worker(rec)
	:: else
	fi
}

proctype user(byte u)
{
	byte seen, mine = NONE, rounds;
	bool answer;
#ifndef NOTHING_DIES
	bool checked;	/* or new, or not to be used: nobody asks whether it is alive */
#endif

again:
	request(u);
serve:
#ifdef BUG_THE_VICTIM_IS_LOOKED_AT_BEFORE_THE_STATE
	if
	:: atomic { victim[u] == NONE -> goto look }
	:: victim[u] != NONE
	fi;
	seen = state[u];
#else
	seen = state[u];	/* read first: a ticket that no longer waits gets no more victims */
#endif
	if
	:: atomic { victim[u] != NONE && IS_PATIENT(u) ->
		mine = victim[u];
		victim[u] = NONE;
		disposed(u, mine);
		mine = NONE
	};
		goto act
	:: atomic { victim[u] != NONE && !IS_PATIENT(u) -> leave_to_worker(victim[u]) };
		atomic { rest(u); goto act }
	:: atomic { victim[u] == NONE -> goto act }
	fi;
#ifdef BUG_THE_VICTIM_IS_LOOKED_AT_BEFORE_THE_STATE
look:	atomic {
		seen = state[u];
		victim[u] = (seen == WAITING -> victim[u] : NONE)	/* nobody will ever look at it again */
	}
#endif
act:
	if
	:: atomic { seen == WAITING -> seen = 0; FALL_ASLEEP(u); goto sleep }
	:: atomic { seen == SLOT -> assert(victim[u] == NONE); seen = 0; LOOKS_NO_MORE(u); goto create }
	:: atomic { seen == CONNECTION -> assert(victim[u] == NONE); seen = 0; LOOKS_NO_MORE(u); goto use }
	:: atomic { seen == CLOSED -> seen = 0; goto victims }
	fi;
sleep:
	if
	:: atomic { released[u] -> released[u] = 0; WAKE_UP(u); goto serve }
	:: atomic { !IS_PATIENT(u) ->	/* time is up, or it is cancelled */
		withdraw(u, answer);
#ifdef BUG_WHO_TIMED_OUT_EATS_THE_GRANT
		answer = 1;
#endif
		LOOKS_NO_MORE(u);
		if
		:: answer -> answer = 0; goto victims
		:: !answer -> goto serve	/* it was served in time, after all */
#ifndef NEVER_CANCELLED
		:: !answer && state[u] == SLOT -> goto give_up
		:: !answer && state[u] == CONNECTION -> DOES_NOT_CHECK; goto use
		:: !answer && state[u] == CLOSED -> goto victims
#endif
		fi
	}
	fi;
create:
	if
	:: atomic {
		fulfil(u, mine);
		if
		:: mine == NONE -> DOES_NOT_CHECK; goto use
		:: else -> goto dispose
		fi
	}
	:: atomic { fail(u); goto victims }	/* or it is cancelled meanwhile */
	fi;
give_up:
	atomic { fail(u); goto victims };
use:	/* or give back unused */
	atomic {
		mine = granted[u];
		granted[u] = NONE;
		if
		:: give_back(u, mine, mine)
		:: discard(u, mine)
#ifndef NOTHING_DIES
		:: !checked -> granted[u] = mine; mine = NONE; replace(u); goto serve
#endif
		fi;
		if
		:: mine != NONE -> goto dispose
		:: else -> goto victims
		fi
	};
dispose:
	atomic { disposed(u, mine); mine = NONE };
victims:
	atomic {
#ifndef BUG_WHO_WITHDRAWS_FORGETS_ITS_VICTIM
		if
		:: victim[u] != NONE -> leave_to_worker(victim[u])
		:: else
		fi;
#endif
		end_ticket(u);
#ifndef NOTHING_DIES
		checked = 0;
#endif
#if ROUNDS == 0
		goto again
#else
		rounds++;
		if
		:: rounds < ROUNDS -> goto again
		:: else -> rounds = 0; finished++
		fi
#endif
	}
}

/* ---- the others */

proctype closer()
{
	byte mine = NONE;

	close();
	do
	:: atomic {
		next_idle(mine);
		if
		:: mine == NONE -> break
		:: else
		fi
	};
		atomic { disposed(CLOSER, mine); mine = NONE }
	od;
	joined = (total != 0);
	do
	:: total == 0 -> break
	:: else -> atomic { released[CLOSER] -> released[CLOSER] = 0 }
	od;
	assert(place[0] == FREE && place[1] == FREE)
}

proctype stranger()	/* gives its connections back or discards them, in any order */
{
	byte mine = NONE;

	do
	:: atomic { owner[0] == STRANGER -> give_back(STRANGER, 0, mine); leave_to_worker_unless_kept(mine) }
	:: atomic { owner[1] == STRANGER -> give_back(STRANGER, 1, mine); leave_to_worker_unless_kept(mine) }
#ifndef STRANGER_DISCARDS_NOTHING
	:: atomic { owner[0] == STRANGER -> discard(STRANGER, 0); owner[0] = WORKER }
	:: atomic { owner[1] == STRANGER -> discard(STRANGER, 1); owner[1] = WORKER }
#endif
	:: owner[0] != STRANGER && owner[1] != STRANGER -> break
	od
}

proctype worker()
{
end:	do
	:: atomic { owner[0] == WORKER -> disposed(WORKER, 0) }
	:: atomic { owner[1] == WORKER -> disposed(WORKER, 1) }
	od
}

#ifdef LIVENESS
/* whoever waits without a timeout is granted something some time (or told that the pool is closed) */
ltl served { [] ((state[2] == WAITING) -> <> (state[2] != WAITING)) }
#endif

init
{
	atomic {
		at[0] = HOMES & 1; at[1] = (HOMES >> 1) & 1; at[2] = (HOMES >> 2) & 1;
		endpoint[0] = LOANS & 1; endpoint[1] = (LOANS >> 1) & 1;
		place[0] = LENT; place[1] = LENT;
		owner[0] = STRANGER; owner[1] = STRANGER;
		total = 2;
		run user(0); run user(1); run user(2);
		run stranger(); run worker();
#ifndef WAKES_AT_ONCE
		run waker();
#endif
#ifndef NEVER_CLOSED
		run closer()
#endif
	}
#if ROUNDS > 0
	/* in the end, whatever there is is idle, and no slot is missing */
	atomic {
		finished == USERS && owner[0] == NONE && owner[1] == NONE ->
		assert(total == (place[0] == IDLE) + (place[1] == IDLE))
	}
#endif
}

/*
 * The protocol between the controllers and the hosts, for the model checker SPIN.
 *
 * How to read and run it, and what it leaves out, is in README.md beside this file.
 *
 * Every interleaving of these is explored:
 *
 *   Host         a host: its journal (durable), and the process at work (volatile)
 *   Coordinator  the controller that runs the deploy, with its journal
 *   Recoverer    `deployguard recover`, run again and again until nothing is unfinished; each run
 *                is on a machine that has the coordinator's journal, or on one that has not
 *
 * with leases that end at any moment, however alive the controller, and with up to TROUBLES of
 * these, in any order and of any kind: a message lost, late, doubled, or carried out without an
 * answer; a host not reached; a host's power cut; a controller killed; an undo that fails.
 *
 * Names in upper case are those of deployguard/onhost/state/machine.py; a test compares the tables.
 */

#ifndef HOSTS
#define HOSTS 2
#endif
#ifndef RECOVERERS
#define RECOVERERS 1		/* how many run at the same time; the second gives up after one run */
#endif
#ifndef TROUBLES
#define TROUBLES 2	/* how many messages, hosts, controllers and undos fail, all together */
#endif

/*
 * With one trouble at most, the runs with a late or doubled message and those with any other can be
 * searched one after the other: together they are all of them.
 */
#define CAN_FAIL	(troubles < TROUBLES)
#define CAN_BE_LATE(h)	(troubles < TROUBLES && !late[h])
#ifdef ONLY_IN_TIME
#undef CAN_BE_LATE
#define CAN_BE_LATE(h)	false
#endif
#ifdef ONLY_LATE
#undef CAN_FAIL
#define CAN_FAIL	false
#endif

/* The states, the events that move them, and what goes over the wire besides the events. */
mtype = { IDLE, BEGUN, STAGED, ARMED, SWITCHED, PREPARED, COMMITTED, RESTORED, ABORTED, STUCK };
mtype = { BEGIN, STAGE, ARM, SWITCH, PREPARE, COMMIT, ABORT, RESTORE, FAIL };
mtype = { ADOPT };		/* take over, under a higher epoch */
mtype = { LOST, REFUSED };	/* answers that are no state */
mtype = { UNDOING };		/* the answer to ADOPT of a host that voted, and whose undo has begun */
mtype = { IN_DOUBT };		/* what a recover may have to say instead of COMMIT or ABORT */

#define CONTROLLERS	(1 + RECOVERERS)
#define ALONE		CONTROLLERS		/* the process at work has no controller any more */
#define NOBODY		(CONTROLLERS + 1)	/* no process is at work on the transaction */
#define EPOCH_LIMIT	30	/* only to see that takeovers do not go on for ever */

#if HOSTS == 1
#define EVERY(P)	(P(0))
#define EACH(DO)	DO(0)
#elif HOSTS == 2
#define EVERY(P)	(P(0) && P(1))
#define EACH(DO)	DO(0); DO(1)
#else
#define EVERY(P)	(P(0) && P(1) && P(2))
#define EACH(DO)	DO(0); DO(1); DO(2)
#endif

/* The sets of machine.py. */
#define UNTOUCHED(s)	(s == IDLE || s == BEGUN || s == STAGED)
#define LEASED(s)	(s == ARMED || s == SWITCHED)
#define TERMINAL(s)	(s == COMMITTED || s == RESTORED || s == ABORTED)

/* ---- what is durable on a host -------------------------------------------------------------- */
mtype state[HOSTS] = IDLE;	/* of the last record in the journal that has one */
bit undo[HOSTS];		/* the procedure, undo included, is in the journal */
bit voted[HOSTS];		/* a `prepared` record is in the journal, whatever came after it */
bit undoing[HOSTS];		/* a `restoring` record is in the journal */
bit live_new[HOSTS];		/* the managed paths are the new tree, not the old one */
byte epoch[HOSTS];		/* the highest that has worked on the transaction */
#ifdef BUG_ARM_UNSYNCED
mtype synced[HOSTS] = IDLE;	/* what is on the disk while `state` is only in memory */
#endif

/* ---- the processes on a host ----------------------------------------------------------------- */
byte owner[HOSTS] = NOBODY;	/* the controller of the one at work, which holds the `alive` lock */
byte working[HOSTS];		/* its own epoch: it is fenced when the durable one is another */
mtype busy[HOSTS];		/* the long step it is in: SWITCH, RESTORE or none */
bit awaited[HOSTS];		/* its controller waits for the answer of that step */
byte heir[HOSTS];		/* 1 + the controller of the one that waits for the lock; 0: there is none */

/*
 * Where the host goes back by itself: not once it has voted. But a restore that has begun is one
 * that somebody has decided on, and it brings that to its end.
 */
#ifdef BUG_REVERTS_AFTER_VOTE
#define GOES_BACK(h)	(LEASED(state[h]) || state[h] == PREPARED)
#else
#define GOES_BACK(h)	(LEASED(state[h]) || (state[h] == PREPARED && undoing[h]))
#endif

#define FENCED(h)	(epoch[h] != working[h])

/* ---- the wire -------------------------------------------------------------------------------- */
mtype request[HOSTS];		/* of the coordinator, on its way */
mtype reply[CONTROLLERS * HOSTS];	/* the state that a request led to, LOST or REFUSED */
bit first[CONTROLLERS * HOSTS];	/* to an ADOPT: nobody had taken over here before */
#define WIRE(k, h)	((k) * HOSTS + (h))

/* A request that its sender has given up, or the second copy of one: it may come at any time. */
mtype late[HOSTS];
byte late_from[HOSTS];
byte late_epoch[HOSTS];

/* ---- the controllers ------------------------------------------------------------------------- */
mtype record;			/* the decision in the coordinator's journal: COMMIT, ABORT or none */
bit over;			/* the coordinator has ended, or was killed */
bit said_committed;		/* somebody has reported that every host is committed */

byte troubles;			/* how much has gone wrong so far */

/* ==== what is checked ============================================================================
 *
 * `check` stands wherever a variable has changed that it reads.
 */
#define IS_COMMITTED(h)		(state[h] == COMMITTED)
#define NOT_COMMITTED(h)	(state[h] != COMMITTED)
#ifdef TOLERATE
/* Under `max_fail_percentage` a host goes back alone whose vote the coordinator did not count. */
bit alone[HOSTS];
#define NOT_BACK(h) \
	(!voted[h] || alone[h] || !(undoing[h] || state[h] == RESTORED || state[h] == STUCK))
#else
#define NOT_BACK(h) \
	(!undoing[h] && state[h] != RESTORED && state[h] != STUCK && state[h] != ABORTED)
#endif
/* Committed serves the new version; what has ended otherwise, or has not begun, the old one. */
#define WHOLE(h)	(live_new[h] -> !UNTOUCHED(state[h]) && state[h] != RESTORED && \
				state[h] != ABORTED : state[h] != COMMITTED)

inline check(h)
{
	/* Never one host committed and another gone back, or on its way back. */
	assert(EVERY(NOT_COMMITTED) || EVERY(NOT_BACK));
	assert(WHOLE(h));
	/* Nothing live is changed but under an undo that is on the disk. */
	assert(!live_new[h] || undo[h]);
	/* A report of success is the truth. */
	assert(!said_committed || EVERY(IS_COMMITTED))
}

/* Always, if the faults end and somebody runs `recover`: every host ends what it began. */
#define SETTLED(h)	(state[h] == IDLE || TERMINAL(state[h]))
/* Always, even if nobody ever does: a host that has not voted ends by itself. */
#define ENDS_ALONE(h)	(SETTLED(h) || voted[h] || state[h] == STUCK)
#ifdef LIVENESS
ltl settled { <> [] EVERY(SETTLED) }
#endif
#ifdef LEASE
ltl unattended { <> [] EVERY(ENDS_ALONE) }
#endif

/* ==== the state table ============================================================================
 *
 * Nothing else moves a state, and an event without a transition changes nothing.
 */
inline drop_late(h)
{
	late[h] = 0; late_from[h] = 0; late_epoch[h] = 0
}

#define TRANSITION(from, event, to) :: state[h] == from && ev == event -> state[h] = to

inline step(h, ev)
{
	legal = true;
	if
	TRANSITION(IDLE, BEGIN, BEGUN)
	TRANSITION(BEGUN, STAGE, STAGED)
	TRANSITION(BEGUN, ABORT, ABORTED)
	TRANSITION(STAGED, ARM, ARMED)
	TRANSITION(STAGED, ABORT, ABORTED)
	TRANSITION(ARMED, SWITCH, SWITCHED)
	TRANSITION(ARMED, RESTORE, RESTORED)
	TRANSITION(ARMED, FAIL, STUCK)
	TRANSITION(SWITCHED, PREPARE, PREPARED)
	TRANSITION(SWITCHED, RESTORE, RESTORED)
	TRANSITION(SWITCHED, FAIL, STUCK)
	TRANSITION(PREPARED, COMMIT, COMMITTED)
	TRANSITION(PREPARED, RESTORE, RESTORED)
	TRANSITION(PREPARED, FAIL, STUCK)
	TRANSITION(STUCK, RESTORE, RESTORED)
	TRANSITION(STUCK, FAIL, STUCK)
	:: else -> legal = false
	fi;
	undo[h] = undo[h] || state[h] == ARMED;
	voted[h] = voted[h] || state[h] == PREPARED;
#ifdef BUG_ARM_UNSYNCED
	/* A record that is synced takes the ones before it along. */
	synced[h] = (state[h] == ARMED -> synced[h] : state[h]);
#endif
	check(h);
	/* What nobody looks at any more is forgotten, so that what differs only there is one state. */
	if
	:: TERMINAL(state[h]) ->
		owner[h] = NOBODY; working[h] = 0; epoch[h] = 0; undoing[h] = false;
		undo[h] = (state[h] == COMMITTED); drop_late(h)
	:: else
	fi
}

/* ==== a host: deployguard/onhost/serve.py, transaction/participant.py, tenure.py =================
 *
 * A request is carried out by `obey` in one step, but for the two that take their time: SWITCH and
 * RESTORE make the host `busy`, and anything may happen before they end.
 */

/* To a controller that is still there and listens. */
inline answer(k, h, what)
{
	if
	:: wanted && !(k == 0 && over) -> reply[WIRE(k, h)] = what
	:: else
	fi
}

/*
 * What the coordinator asks next as soon as it has heard: to switch when armed, for the vote when
 * switched. Whatever the batches are, a host goes on when it likes: a request may wait for ever.
 */
inline go_on(h, verb)
{
	if
	:: wanted && !over -> request[h] = verb
	:: else
	fi
}

/* `Participant._need`: a process that is not, or no longer, at work on it changes nothing. */
inline serve(k, h, verb, as)
{
	if
#ifdef BUG_LOWER_EPOCH
	:: verb != BEGIN && verb != COMMIT && (owner[h] != k || working[h] != as || FENCED(h)) ->
		answer(k, h, LOST)
#else
	:: verb != BEGIN && (owner[h] != k || working[h] != as || FENCED(h)) -> answer(k, h, LOST)
#endif
	:: else -> obey(k, h, verb)
	fi
}

inline obey(k, h, verb)
{
	/* What it means for the state; 0 for what takes its time or changes nothing. */
	if
	:: verb == BEGIN || verb == STAGE || verb == ARM || verb == PREPARE -> event = verb
	:: verb == PREPARE -> answer(k, h, REFUSED)	/* not healthy: no vote */
	:: verb == SWITCH && state[h] == ARMED ->
		busy[h] = SWITCH; awaited[h] = wanted; live_new[h] = true; check(h)
	/* A step before the swap fails; or this is no time to switch. */
	:: verb == SWITCH -> answer(k, h, REFUSED)
	:: verb == COMMIT && state[h] == COMMITTED -> answer(k, h, COMMITTED)
#ifdef BUG_COMMIT_AFTER_UNDO
	:: verb == COMMIT && state[h] != COMMITTED -> event = COMMIT
#else
	/* A restore that a power cut has broken off has left neither the old tree nor the new one. */
	:: verb == COMMIT && state[h] != COMMITTED && undoing[h] -> answer(k, h, REFUSED)
	:: verb == COMMIT && state[h] != COMMITTED && !undoing[h] -> event = COMMIT
#endif
	:: verb == RESTORE && (state[h] == BEGUN || state[h] == STAGED) -> event = ABORT
	:: verb == RESTORE && TERMINAL(state[h]) -> answer(k, h, state[h])
	:: verb == RESTORE && state[h] == IDLE -> answer(k, h, REFUSED)
	:: verb == RESTORE && !UNTOUCHED(state[h]) && !TERMINAL(state[h]) ->
		begin_undo(h); awaited[h] = wanted
	fi;
	if
	:: event != 0 ->
		step(h, event);
		if
		:: legal && event == BEGIN -> epoch[h] = 1; working[h] = 1; owner[h] = k
		:: else
		fi;
		if
		/* What the coordinator asks next as soon as it has heard that a host is armed. */
		:: legal && event == ARM -> go_on(h, SWITCH)
		:: legal && event != ARM -> answer(k, h, state[h])
		:: !legal -> answer(k, h, REFUSED)
		fi;
		event = 0; legal = false
	:: else
	fi
}

/* The record comes before the deed; how much of that is done when the power goes, nobody knows. */
inline begin_undo(h)
{
	undoing[h] = true; live_new[h] = false; busy[h] = RESTORE; check(h)
}

/*
 * `Participant.adopt`. The epoch is raised first, and that fences the process at work: it ends its
 * step and lets go of the lock. Only then does the new one, its heir, read the journal.
 */
inline adopt(k, h, new)
{
	if
	:: TERMINAL(state[h]) -> answer(k, h, state[h])
	:: !TERMINAL(state[h]) && (state[h] == IDLE || new <= epoch[h]) -> answer(k, h, REFUSED)
	:: else ->
		assert(new < EPOCH_LIMIT);
		first[WIRE(k, h)] = wanted && epoch[h] == 1;
		epoch[h] = new;
		if
		:: busy[h] ->
			/* An earlier heir sees that it is none. */
			if
			:: heir[h] && heir[h] - 1 < CONTROLLERS -> reply[WIRE(heir[h] - 1, h)] = REFUSED
			:: else
			fi;
			heir[h] = 1 + (wanted -> k : ALONE)
		:: else -> take(k, h)
		fi
	fi
}

inline take(k, h)
{
	working[h] = epoch[h];
	owner[h] = (wanted -> k : ALONE);
	/* What the old process has not read by now is lost with it. */
	if
	:: late[h] != ADOPT -> drop_late(h)
	:: else
	fi;
	if
#ifndef BUG_COMMIT_AFTER_UNDO
	:: state[h] == PREPARED && undoing[h] -> answer(k, h, UNDOING)
#endif
	:: else -> answer(k, h, state[h])
	fi
}

inline end_step()
{
	wanted = awaited[h] && owner[h] < CONTROLLERS;
	if
	:: event == SWITCH -> go_on(h, PREPARE)
	:: event == RESTORE -> answer(owner[h], h, RESTORED)
	:: event == FAIL -> answer(owner[h], h, STUCK)
	:: event == 0 -> answer(owner[h], h, REFUSED)
	fi;
	busy[h] = 0; awaited[h] = false; wanted = false;
	if
	:: event != 0 -> step(h, event); event = 0; legal = false
	:: else
	fi;
	/* Now the lock is free, if somebody waits for it. */
	if
	:: heir[h] && TERMINAL(state[h]) && heir[h] - 1 < CONTROLLERS ->
		reply[WIRE(heir[h] - 1, h)] = state[h]
	:: heir[h] && !TERMINAL(state[h]) ->
		wanted = heir[h] - 1 < CONTROLLERS;
		take(heir[h] - 1, h);
		wanted = false
	:: else
	fi;
	heir[h] = 0
}

inline put_off(k, verb, as)
{
	late[h] = verb; late_from[h] = k; late_epoch[h] = as
}

/* What the power takes with it that controller k waits for. */
#define CUT_OFF(k) \
	if \
	:: heir[h] == k + 1 || (busy[h] && awaited[h] && owner[h] == k) || (k == 0 && request[h]) -> \
		wanted = true; answer(k, h, LOST); wanted = false \
	:: else \
	fi

proctype Host(byte h)
{
	mtype verb, event;
	bit legal, wanted;
	byte from, as;
end:
	do
	/*
	 * A request comes: of the coordinator, which tells all hosts at the same time; or one that was
	 * late or doubled, and whose answer nobody waits for.
	 */
	:: atomic { (request[h] && !busy[h]) || (late[h] && (!busy[h] || late[h] == ADOPT)) ->
		if
		:: request[h] && !busy[h] ->
			verb = request[h]; from = 0; as = working[h]; request[h] = 0; wanted = true
		:: late[h] && (!busy[h] || late[h] == ADOPT) ->
			verb = late[h]; from = late_from[h]; as = late_epoch[h]; drop_late(h)
		fi;
		if
		:: verb == ADOPT -> adopt(from, h, as)
		:: else -> serve(from, h, verb, as)
		fi;
		verb = 0; from = 0; as = 0; wanted = false }
	:: atomic { request[h] && CAN_FAIL -> troubles++;	/* it never arrives */
		request[h] = 0; wanted = true; answer(0, h, LOST); wanted = false }
	:: atomic { request[h] && CAN_BE_LATE(h) -> troubles++;	/* it does when nobody waits for it */
		put_off(0, request[h], working[h]);
		request[h] = 0; wanted = true; answer(0, h, LOST); wanted = false }
	:: atomic { request[h] && CAN_BE_LATE(h) -> troubles++;	/* it arrives twice */
		put_off(0, request[h], working[h]) }
	:: atomic { reply[WIRE(0, h)] && reply[WIRE(0, h)] != LOST && CAN_FAIL -> troubles++;
		reply[WIRE(0, h)] = LOST	/* it was carried out, but nobody hears of it */ }

	/* A step that has begun ends, fenced or not: the takeover waits for it. */
	:: atomic { busy[h] ->
		if
		:: busy[h] == SWITCH -> event = SWITCH
		:: busy[h] == SWITCH		/* a step after the swap failed */
		:: busy[h] == RESTORE -> event = RESTORE
		:: busy[h] == RESTORE && CAN_FAIL -> troubles++; event = FAIL
		fi;
		end_step() }

	/*
	 * The lease ends, at any moment: a controller that is dead, slow or cut off looks the same
	 * from here. Before the undo is armed the host aborts, then it restores; when it has voted
	 * it waits. Where no process is left it is the dead-man that does so, under the epoch that
	 * stands; one that was fenced off leaves it to its heir.
	 */
	:: atomic { !busy[h] && (owner[h] == NOBODY || !FENCED(h)) &&
			(state[h] == BEGUN || state[h] == STAGED) -> step(h, ABORT); legal = false }
	:: atomic { !busy[h] && (owner[h] == NOBODY || !FENCED(h)) && GOES_BACK(h) ->
		owner[h] = ALONE; working[h] = epoch[h]; begin_undo(h) }

	/* The power is cut. The journal stays; what was in memory and on the wire is gone. */
	:: atomic { owner[h] != NOBODY && CAN_FAIL -> troubles++;
		CUT_OFF(0);
#if RECOVERERS > 0
		CUT_OFF(1);
#endif
#if RECOVERERS > 1
		CUT_OFF(2);
#endif
		owner[h] = NOBODY; working[h] = 0; busy[h] = 0; awaited[h] = false; heir[h] = 0;
		request[h] = 0; drop_late(h);
#ifdef BUG_ARM_UNSYNCED
		if
		:: synced[h] != state[h] -> state[h] = synced[h]; undo[h] = false; check(h)
		:: else
		fi
#endif
		}
	od
}

/* ==== controllers ============================================================================= */

/*
 * One request of a controller that waits for the answer. That the wire takes time needs no state of
 * its own: to send later, or to read the answer later, is the same.
 */
#define ARRIVES		0
#define IS_LOST		1
#define IS_UNANSWERED	2	/* carried out, but the answer is lost */
#define IS_LATE		3	/* carried out when nobody waits for it any more */
#define COMES_TWICE	4

inline call(k, h, verb, new)
{
	if
	:: fate = ARRIVES
	:: CAN_FAIL -> troubles++; fate = IS_LOST
	:: CAN_FAIL -> troubles++; fate = IS_UNANSWERED
	:: CAN_BE_LATE(h) -> troubles++; fate = IS_LATE
	:: CAN_BE_LATE(h) -> troubles++; fate = COMES_TWICE
	fi;
	wanted = (fate == ARRIVES || fate == COMES_TWICE);
	as = working[h];
	if
	:: fate != IS_LOST && fate != IS_LATE && verb == ADOPT -> adopt(k, h, new)
	:: fate != IS_LOST && fate != IS_LATE && verb != ADOPT -> serve(k, h, verb, as)
	:: else
	fi;
	if
	:: fate == IS_LATE || fate == COMES_TWICE ->
		late[h] = verb; late_from[h] = k; late_epoch[h] = (verb == ADOPT -> new : as)
	:: else
	fi;
	if
	:: !wanted -> reply[WIRE(k, h)] = LOST
	:: else
	fi;
	wanted = false; fate = 0; as = 0
}

/* The connection breaks while it waits for the end of a step. */
inline hang_up(k, h)
{
	if
#ifdef BUG_TAKEOVER_GIVES_UP
	:: heir[h] == k + 1 -> heir[h] = 0		/* and the epoch that it raised stays */
#else
	:: heir[h] == k + 1 -> heir[h] = ALONE + 1	/* it goes on, and is there when the lease ends */
#endif
	:: heir[h] != k + 1 && busy[h] && owner[h] == k -> awaited[h] = false
	:: else
	fi
}

/* Killed between any two steps. */
#define MAY_DIE :: atomic { CAN_FAIL -> troubles++; goto killed }
#define MAY_LOSE(k) \
	:: atomic { h < HOSTS && !reply[WIRE(k, h)] && CAN_FAIL -> troubles++; \
		hang_up(k, h); reply[WIRE(k, h)] = LOST }

/* `decide` of deployguard/store/journal.py: one statement of the database, and the first stands. */
inline decide(what)
{
	if
	:: record == 0 -> record = what
	:: else
	fi
}

/* ==== the coordinator: deployguard/rollout/fleet.py and rescue.py ============================= */

#define SAYS(h, what)	(reply[WIRE(0, h)] == what)
#define HAS_SAID(h)	(reply[WIRE(0, h)] != 0)
#define SAYS_BEGUN(h)	SAYS(h, BEGUN)
#define SAYS_STAGED(h)	SAYS(h, STAGED)
#define SAYS_PREPARED(h) SAYS(h, PREPARED)
#define SAYS_COMMITTED(h) SAYS(h, COMMITTED)
#define FAILED(h)	(SAYS(h, LOST) || SAYS(h, REFUSED))

#define SEND(h, verb)	reply[WIRE(0, h)] = 0; request[h] = verb
#define SEND_BEGIN(h)	SEND(h, BEGIN)
#define SEND_STAGE(h)	SEND(h, STAGE)
#define SEND_ARM(h)	SEND(h, ARM)
#define SEND_RESTORE(h) \
	if \
	:: !SAYS(h, LOST) -> SEND(h, RESTORE) \
	:: else \
	fi
#ifdef TOLERATE
#define SEND_DECISION(h) \
	alone[h] = !SAYS(h, PREPARED); \
	if \
	:: SAYS(h, PREPARED) -> SEND(h, COMMIT) \
	:: SAYS(h, REFUSED) -> SEND(h, RESTORE) \
	:: else \
	fi
#define HAS_TO_GO_BACK(h) (record == ABORT || alone[h])
#else
#define SEND_DECISION(h) SEND(h, COMMIT)
#define HAS_TO_GO_BACK(h) true
#endif
/* What is on its way arrives or does not. */
#define LEAVE_BEHIND(h) \
	hang_up(0, h); reply[WIRE(0, h)] = 0; first[WIRE(0, h)] = false; \
	if \
	:: request[h] -> request[h] = 0 \
	:: true \
	fi

#ifdef REJOIN
/*
 * With an engine a job that has lost its worker is entered again elsewhere (engine/joining.py). A host
 * that has voted is taken over under the epoch after the one that it was held under; nobody else has
 * raised that meanwhile, or its vote is none for the coordinator any more. A host that had not come
 * to its vote has failed.
 */
byte held[HOSTS] = 1;
bit rejoined[HOSTS];		/* once before the decision, once after it: more is more of the same */
#ifdef BUG_REJOIN_ABOVE_ALL
#define STILL_OURS(h)	true
#define NEXT(h)		held[h] = epoch[h] + 1
#else
#define STILL_OURS(h)	(epoch[h] == held[h])
#define NEXT(h)		held[h]++
#endif
#define WORKER_DIES(h) \
	:: atomic { SAYS(h, PREPARED) && !rejoined[h] && CAN_FAIL -> troubles++; \
		reply[WIRE(0, h)] = LOST }
#define MAY_REJOIN(h) \
	:: atomic { SAYS(h, LOST) && state[h] == PREPARED && !undoing[h] && !rejoined[h] -> \
		rejoined[h] = true; \
		if \
		:: STILL_OURS(h) -> NEXT(h); reply[WIRE(0, h)] = 0; call(0, h, ADOPT, held[h]) \
		:: else -> reply[WIRE(0, h)] = REFUSED \
		fi }
/* The order that its worker had when it died; when it has come so far, to answer is enough. */
#define COMMIT_AGAIN(h) \
	:: atomic { SAYS(h, PREPARED) -> SEND(h, COMMIT) }
#define FORGET_REJOINED(h) rejoined[h] = false
#if HOSTS == 1
#define ANY_HOST(ALTERNATIVE)	ALTERNATIVE(0)
#elif HOSTS == 2
#define ANY_HOST(ALTERNATIVE)	ALTERNATIVE(0) ALTERNATIVE(1)
#else
#define ANY_HOST(ALTERNATIVE)	ALTERNATIVE(0) ALTERNATIVE(1) ALTERNATIVE(2)
#endif
#define ABOVE_HELD(h)	mine = (held[h] >= mine -> held[h] + 1 : mine)
#define HIGHER		mine++; EACH(ABOVE_HELD)
#else
#define HIGHER		mine++
#endif

proctype Coordinator()
{
	byte h = HOSTS;
	byte mine = 1;
	mtype event;
	byte fate, as;
	bit legal, wanted;

	atomic { EACH(SEND_BEGIN) };
	if
	:: atomic { EVERY(HAS_SAID) && EVERY(SAYS_BEGUN) -> EACH(SEND_STAGE) }
	:: atomic { EVERY(HAS_SAID) && !EVERY(SAYS_BEGUN) -> goto give_up }
	MAY_DIE
	fi;
	if
	:: atomic { EVERY(HAS_SAID) && EVERY(SAYS_STAGED) -> EACH(SEND_ARM) }
	:: atomic { EVERY(HAS_SAID) && !EVERY(SAYS_STAGED) -> goto give_up }
	MAY_DIE
	fi;
#ifdef REJOIN
	do
	ANY_HOST(WORKER_DIES)
	ANY_HOST(MAY_REJOIN)
	:: atomic { EVERY(HAS_SAID) && !EVERY(SAYS_PREPARED) -> goto give_up }
	:: EVERY(HAS_SAID) && EVERY(SAYS_PREPARED) -> break
	MAY_DIE
	:: atomic { CAN_FAIL -> troubles++; decide(ABORT); goto killed }
	od;
#else
	if
#ifdef TOLERATE
	:: atomic { EVERY(HAS_SAID) && EVERY(FAILED) -> goto give_up }
	:: EVERY(HAS_SAID) && !EVERY(FAILED)
#else
	:: atomic { EVERY(HAS_SAID) && !EVERY(SAYS_PREPARED) -> goto give_up }
	:: EVERY(HAS_SAID) && EVERY(SAYS_PREPARED)
#endif
	MAY_DIE
	/* An interrupt is the same, with a record of it. */
	:: atomic { CAN_FAIL -> troubles++; decide(ABORT); goto killed }
	fi;
#endif
	/* Every vote is durable on its host; the decision is so here before any host hears of it. */
#ifdef BUG_TELL_BEFORE_RECORD
	atomic { EACH(SEND_DECISION) };
	if
	:: atomic { true -> decide(COMMIT) }
	MAY_DIE
	fi;
#else
	if
	:: atomic { true -> decide(COMMIT) }
	MAY_DIE
	fi;
	if
	:: atomic { record == COMMIT -> EACH(SEND_DECISION) }
	:: atomic { record != COMMIT -> goto give_up }	/* a recover was first */
	MAY_DIE
	fi;
#endif
#ifdef REJOIN
	atomic { EACH(FORGET_REJOINED) };
	do
	ANY_HOST(MAY_REJOIN)
	ANY_HOST(COMMIT_AGAIN)
	:: atomic { EVERY(HAS_SAID) ->
		said_committed = EVERY(SAYS_COMMITTED); check(0); goto killed }
	MAY_DIE
	od;
#else
	if
	:: atomic { EVERY(HAS_SAID) ->
		said_committed = EVERY(SAYS_COMMITTED);	/* if not, it says who is in doubt */
		check(0);
#ifdef TOLERATE
		h = 0; goto reconnect
#else
		goto killed
#endif
		}
	MAY_DIE
	fi;
#endif

give_up: /* No record means abort: this one only serves who reads it. */
	atomic { decide(ABORT); EACH(SEND_RESTORE) };
	if
	:: atomic { EVERY(HAS_SAID) -> h = 0 }
	MAY_DIE
	fi;
reconnect: /* Whose connection broke is reached anew, and taken over under a higher epoch. */
	do
	:: atomic { h < HOSTS && SAYS(h, LOST) && HAS_TO_GO_BACK(h) ->
		HIGHER; reply[WIRE(0, h)] = 0; call(0, h, ADOPT, mine) };
		do
		:: atomic { HAS_SAID(h) && !FAILED(h) && !TERMINAL(reply[WIRE(0, h)]) && !busy[h] ->
			reply[WIRE(0, h)] = 0; call(0, h, RESTORE, 0) }
		:: atomic { HAS_SAID(h) && (FAILED(h) || TERMINAL(reply[WIRE(0, h)])) -> h++; break }
		:: atomic { SAYS(h, STUCK) -> h++; break }
		MAY_LOSE(0)
		MAY_DIE
		od
	:: atomic { h < HOSTS && !(SAYS(h, LOST) && HAS_TO_GO_BACK(h)) -> h++ }
	:: atomic { h == HOSTS -> break }
	od;

killed:	atomic { h = HOSTS; mine = 0; over = true; EACH(LEAVE_BEHIND) }
}

/* ==== `deployguard recover`: deployguard/rollout/unfinished.py ================================ */

#if RECOVERERS > 0
#define HEARD(h)	reply[WIRE(k, h)]
#define ANSWERED(h)	(HEARD(h) != LOST && HEARD(h) != REFUSED)
#define ANY(P)		(!EVERY(NO_##P))
#define NO_COMMITTED(h)	(HEARD(h) != COMMITTED)
#define TELLS_COMMITTED(h) (HEARD(h) == COMMITTED)
#define NO_MISSING(h)	ANSWERED(h)
/* Somebody has decided abort: a host that had voted never goes back of its own accord. */
#define NO_VOTER_BACK(h) \
	(!voted[h] || !(HEARD(h) == RESTORED || HEARD(h) == STUCK || HEARD(h) == UNDOING))
#define NO_BACK(h)	(HEARD(h) != RESTORED && HEARD(h) != ABORTED)
/*
 * Whether one host that went back speaks for all: there is no commit without every vote. Where some
 * may go back alone, it does not, unless all have answered.
 */
#ifdef TOLERATE
#define AGREED		(!ANY(MISSING))
#else
#define AGREED		true
#endif
#define SENT_BACK	(AGREED && ANY(VOTER_BACK))
/* Nobody had taken over here, so that nobody can have found that no host has committed. */
#define NO_FIRST(h)	(!first[WIRE(k, h)] || HEARD(h) != PREPARED)

/*
 * The decision, from the record if this run has the journal, and from what the hosts have said.
 */
inline conclude()
{
	if
	:: ANY(COMMITTED) -> decision = COMMIT
#ifdef BUG_ABORT_UNRECORDED
	:: !ANY(COMMITTED) && knows && seen != COMMIT -> decision = ABORT
	:: !ANY(COMMITTED) && knows && seen == COMMIT ->
#else
	/* No record means abort, and it has to go on meaning that: the coordinator may be alive. */
	:: !ANY(COMMITTED) && knows && record != COMMIT -> decide(ABORT); decision = ABORT
	:: !ANY(COMMITTED) && knows && record == COMMIT ->
#endif
#ifdef BUG_RECORD_OVERRULES
		decision = COMMIT
#else
		/* A recover without the journal may have found that no host had committed. */
		if
		:: SENT_BACK -> decision = ABORT
		:: else -> decision = (ANY(MISSING) && !ANY(FIRST) -> IN_DOUBT : COMMIT)
		fi
#endif
	:: !ANY(COMMITTED) && !knows ->
#ifdef BUG_BACK_MEANS_ABORT
		decision = (ANY(MISSING) && !ANY(VOTER_BACK) && !ANY(BACK) -> IN_DOUBT : ABORT)
#else
		decision = (ANY(MISSING) && !SENT_BACK && !(AGREED && ANY(BACK)) -> IN_DOUBT : ABORT)
#endif
	fi
}

/* The request that carries the decision out, and who needs none. */
#define TOLD(h)		(decision == COMMIT && HEARD(h) == PREPARED -> COMMIT : RESTORE)
#define LEAVE(h)	(HEARD(h) == 0 || !ANSWERED(h) || TERMINAL(HEARD(h)) || \
				(decision == IN_DOUBT && HEARD(h) == PREPARED))

/*
 * A host that knew nothing when it was asked may have begun since: it is asked again, now that the
 * others stand still. (No trace here and a vote elsewhere: all begin before any may vote.)
 */
#ifdef BUG_ABSENT_STAYS_ABSENT
#define LOOK_AGAIN(h)	skip
#else
#define LOOK_AGAIN(h)	HEARD(h) = (HEARD(h) == 0 && state[h] != IDLE -> REFUSED : HEARD(h))
#endif

#define CLEAR(h)	HEARD(h) = 0; first[WIRE(k, h)] = false
#define ABANDON(h)	hang_up(k, h); CLEAR(h)
#define HIGHEST(h)	raised[k] = (epoch[h] >= raised[k] -> epoch[h] + 1 : raised[k])

/* Epochs are only compared: when nobody else works with them they are counted from 2 again. */
#define RENUMBER(h) \
	if \
	:: epoch[h] > 1 && !late[h] && !heir[h] && (owner[h] == NOBODY || !FENCED(h)) -> \
		epoch[h] = 2; working[h] = (owner[h] == NOBODY -> 0 : 2) \
	:: else \
	fi

byte raised[CONTROLLERS];	/* the epoch of a run */

proctype Recoverer(byte k)
{
	byte h = HOSTS;
	bit knows, adopted, legal, wanted;
	mtype decision, seen, event;
	byte fate, as;

again:	/* Somebody runs it when something is unfinished, the coordinator dead or not. */
	if
	:: atomic { !EVERY(SETTLED) ->
#if RECOVERERS == 1
		if
		:: over -> EACH(RENUMBER)
		:: else
		fi;
#endif
#ifdef BUG_ABORT_UNRECORDED
		seen = record;
#endif
		raised[k] = 2; EACH(HIGHEST); h = 0 }
	:: atomic { over && EVERY(SETTLED) -> goto ended }
#if RECOVERERS > 1
	:: atomic { k == 2 -> goto ended }
#endif
	fi;
	/* First every host is taken over, so that nothing changes under the decision. */
	do
	:: atomic { h < HOSTS && HEARD(h) == 0 && heir[h] != k + 1 ->
		if
		:: state[h] == IDLE -> h++
		:: TERMINAL(state[h]) -> HEARD(h) = state[h]; h++
		:: !SETTLED(h) && CAN_FAIL -> troubles++; HEARD(h) = LOST; h++	/* not reached */
		:: state[h] == PREPARED && ANY(MISSING) -> HEARD(h) = LOST; h++	/* let alone: it is in doubt */
#ifdef BUG_DECIDE_BEFORE_FENCE
		:: !SETTLED(h) -> HEARD(h) = state[h]; h++
#else
		:: !SETTLED(h) -> call(k, h, ADOPT, raised[k]);
			h = (HEARD(h) -> h + 1 : h)
#endif
		fi }
	:: atomic { h < HOSTS && HEARD(h) != 0 -> h++ }		/* its turn to wait is over */
	:: atomic { h == HOSTS ->
		EACH(LOOK_AGAIN);
		if
		:: knows = true		/* on a machine that has the coordinator's journal */
		:: knows = false
		fi;
		conclude(); knows = false; h = 0; break }
	MAY_LOSE(k)
	MAY_DIE
	od;
	do
	:: atomic { h < HOSTS && LEAVE(h) -> h++; adopted = false }
#ifdef BUG_DECIDE_BEFORE_FENCE
	:: atomic { h < HOSTS && !LEAVE(h) && !adopted -> HEARD(h) = 0; call(k, h, ADOPT, raised[k]) };
		if
		:: atomic { HEARD(h) -> adopted = true }
		MAY_DIE
		fi
	:: atomic { h < HOSTS && !LEAVE(h) && !busy[h] && adopted -> adopted = false;
#else
	:: atomic { h < HOSTS && !LEAVE(h) && !busy[h] ->
#endif
		seen = TOLD(h); HEARD(h) = 0; call(k, h, seen, 0); seen = 0 };
		do
		:: atomic { HEARD(h) -> h++; break }
		MAY_LOSE(k)
		MAY_DIE
		od
	:: atomic { h == HOSTS ->
		said_committed = said_committed || EVERY(TELLS_COMMITTED); check(0);
		EACH(CLEAR); break }
	MAY_DIE
	od;
	goto next_run;
killed:	atomic { EACH(ABANDON) };
next_run: atomic {
		decision = 0; h = HOSTS; raised[k] = 0; seen = 0; adopted = false;
#if RECOVERERS > 1
		if
		:: k == 2 -> goto ended
		:: else
		fi;
#endif
		goto again
	};
ended:	skip
}
#endif

init {
	byte i;
	atomic {
		do
		:: i < HOSTS -> run Host(i); i++
		:: else -> break
		od;
		i = 0;
		run Coordinator();
#if RECOVERERS > 0
		run Recoverer(1);
#endif
#if RECOVERERS > 1
		run Recoverer(2)
#endif
	}
}

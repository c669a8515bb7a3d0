//! The guard's rules one by one, then random lives of a cluster of three daemons and of another that may take over: daemons
//! are killed and start, answers come or do not, the other side fails over and tells it, an operator steps in. In no history
//! does a daemon let clients write that nobody's word covers in this run of the cluster.

use proptest::prelude::*;

use super::*;

const WEST: &str = "west";
const ORDERS: TopicId = TopicId([7; 16]);
const OTHER: TopicId = TopicId([8; 16]);

fn at_stake() -> BTreeMap<String, Stake> {
    let orders = Stake {
        topics: BTreeMap::from([(ORDERS, "orders".to_owned())]),
        cluster_id: "west-1".to_owned(),
    };
    BTreeMap::from([(WEST.to_owned(), orders), ("south".to_owned(), Stake::default())])
}

/// What a cluster says that copies from here.
fn copying(region_epoch: u64) -> PeerWord {
    PeerWord {
        region_epoch,
        copies: true,
        taken: Some(false),
        cluster_id: "west-1".to_owned(),
    }
}

/// What one says that is promoted, and whether this side has confirmed that.
fn promoted(region_epoch: u64, confirmed: bool) -> PeerWord {
    PeerWord {
        copies: false,
        taken: Some(!confirmed),
        ..copying(region_epoch)
    }
}

fn begun() -> Guard {
    let guard = Guard::default();
    guard.begin(at_stake());
    guard
}

fn unguarded(index: u64) -> Unguarded {
    Unguarded {
        index,
        at_ms: 0,
        reason: String::new(),
    }
}

#[test]
fn only_what_another_cluster_could_have_taken_is_guarded() {
    let guard = Guard::default();
    assert_eq!(guard.waits_for(ORDERS), None, "nothing before it has begun");
    assert!(!guard.word(WEST, 5).clear, "and it vouches for nothing");
    guard.begin(at_stake());
    assert_eq!(guard.waits_for(ORDERS).as_deref(), Some(WEST));
    assert_eq!(guard.waits_for(OTHER), None);
    assert!(!guard.word(WEST, 5).clear);
    assert!(
        guard.word("south", 5).clear,
        "what it takes nothing from is not waited for"
    );
    assert!(!guard.word("north", 5).clear, "of strangers it knows nothing");
    guard.begin(BTreeMap::new());
    assert!(guard.waits(WEST), "it begins once");
}

#[test]
fn a_cluster_that_has_taken_over_opens_nothing() {
    let guard = begun();
    for (word, own) in [
        (promoted(3, true), 2),
        // Its number is not above, or even below: it was built anew before it took over, or took over at once with this side.
        (promoted(3, false), 3),
        (promoted(1, false), 2),
        // It copies until the last partition is cut.
        (
            PeerWord {
                copies: true,
                ..promoted(1, false)
            },
            2,
        ),
        // One of an earlier version has its number alone.
        (
            PeerWord {
                taken: None,
                ..copying(3)
            },
            2,
        ),
    ] {
        assert!(!guard.heard(WEST, &word, own), "{word:?}");
        assert!(guard.waiting()[WEST].problem.contains("taken topics over"));
        assert!(guard.waits_for(ORDERS).is_some());
    }
    assert!(guard.heard(WEST, &promoted(3, true), 3));
    assert_eq!(guard.waits_for(ORDERS), None);
    assert_eq!(guard.opened_by(WEST).as_deref(), Some(WEST));
    guard.note(WEST, "late".to_owned());
    assert!(guard.waiting().is_empty(), "what is open stays open");
}

#[test]
fn a_side_that_was_built_anew_believes_a_cluster_that_copies_from_it() {
    let guard = begun();
    assert!(guard.heard(WEST, &copying(2), 0));
    assert_eq!(guard.waits_for(ORDERS), None);
}

#[test]
fn another_cluster_of_the_same_name_does_not_speak_for_the_one_that_copied() {
    let guard = begun();
    let anew = PeerWord {
        cluster_id: "west-2".to_owned(),
        ..copying(0)
    };
    assert!(!guard.heard(WEST, &anew, 0));
    assert!(
        guard.waiting()[WEST]
            .problem
            .contains("cluster west-2 answers under its name")
    );
    // Who does not say its id is of an earlier version.
    let silent = PeerWord {
        cluster_id: String::new(),
        ..anew
    };
    assert!(guard.heard(WEST, &silent, 0));
}

#[test]
fn a_daemon_that_runs_vouches_once_its_log_is_caught_up_with() {
    let (runs, starts) = (begun(), begun());
    runs.heard(WEST, &copying(0), 0);
    let word = runs.word(WEST, 9);
    assert!(
        !starts.colleague(WEST, 1, &word, 8),
        "a fence may be in what is missing"
    );
    assert!(starts.colleague(WEST, 1, &word, 9));
    assert!(starts.word(WEST, 9).clear, "and vouches itself");
}

#[test]
fn an_operators_word_is_for_the_daemons_that_were_there() {
    let guard = begun();
    assert!(!guard.operator(WEST, None, Some(5)));
    assert!(
        !guard.operator(WEST, Some(&unguarded(4)), Some(5)),
        "it is from before this start"
    );
    assert!(!guard.operator(WEST, Some(&unguarded(9)), None));
    assert!(guard.operator(WEST, Some(&unguarded(9)), Some(5)));
    assert_eq!(guard.opened_by(WEST).as_deref(), Some("an operator"));
}

#[derive(Debug, Clone)]
enum Step {
    Kill(usize),
    Start(usize),
    /// A running daemon applies the next entry of the log.
    Apply(usize),
    /// A daemon asks the other cluster, and the line holds.
    Ask(usize),
    /// A daemon asks another, which answers if it runs.
    AskDaemon(usize, usize),
    /// The other cluster takes the topics over.
    FailOver,
    /// It tells: the log gets a fence, if most daemons run.
    Tell,
    /// The operator's word, if most daemons run.
    Operator,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3usize).prop_map(Step::Kill),
        4 => (0..3usize).prop_map(Step::Start),
        4 => (0..3usize).prop_map(Step::Apply),
        2 => (0..3usize).prop_map(Step::Ask),
        6 => (0..3usize, 0..3usize).prop_map(|(a, b)| Step::AskDaemon(a, b)),
        1 => Just(Step::FailOver),
        1 => Just(Step::Tell),
        1 => Just(Step::Operator),
    ]
}

/// An entry of the cluster's log, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Entry {
    Registration,
    GiveWay,
    Unguard,
}

struct Daemon {
    guard: Guard,
    registered: u64,
    applied: u64,
}

/// A cluster, what became of it, and what its daemons may do by the rules of the world, not by those of the guard.
#[derive(Default)]
struct World {
    log: Vec<Entry>,
    daemons: [Option<Daemon>; 3],
    /// The cluster was founded: the first start of all is not guarded.
    founded: bool,
    /// Somebody's word was heard in this run, or it is the first.
    heard: bool,
    /// The other side failed over, and whether that was before the word.
    taken: bool,
    heard_after: bool,
    /// The region epoch here, of which the other cluster knows nothing.
    ahead: u64,
}

impl World {
    fn majority(&self) -> bool {
        self.daemons.iter().flatten().count() >= 2
    }

    fn append(&mut self, entry: Entry) -> u64 {
        self.log.push(entry);
        self.log.len() as u64
    }

    fn has(&self, daemon: &Daemon, entry: Entry) -> bool {
        self.log[..daemon.applied as usize].contains(&entry)
    }

    fn start(&mut self, which: usize) {
        if self.daemons[which].is_some() {
            return;
        }
        // It takes part once its registration is applied; the log is as it was.
        let index = self.append(Entry::Registration);
        let guard = Guard::default();
        if self.founded {
            guard.begin(at_stake());
        } else {
            guard.begin(BTreeMap::from([(WEST.to_owned(), Stake::default())]));
        }
        self.daemons[which] = Some(Daemon {
            guard,
            registered: index,
            applied: index,
        });
    }

    fn kill(&mut self, which: usize) {
        self.daemons[which] = None;
        if self.daemons.iter().all(Option::is_none) {
            (self.heard, self.heard_after) = (false, false);
            self.founded = true;
        }
    }

    fn ask(&mut self, which: usize) {
        let Some(daemon) = &self.daemons[which] else {
            return;
        };
        let told = self.log.contains(&Entry::GiveWay);
        // Before it can give way, the other side has raised its number above the one here.
        let own = self.ahead + u64::from(self.has(daemon, Entry::GiveWay));
        let word = match self.taken {
            false => copying(0),
            true => promoted(if told { self.ahead + 1 } else { 1 }, told),
        };
        let opened = daemon.guard.heard(WEST, &word, own);
        if opened && !self.heard {
            (self.heard, self.heard_after) = (true, self.taken);
        }
    }

    fn ask_daemon(&self, which: usize, of: usize) {
        let (Some(asks), Some(asked)) = (&self.daemons[which], &self.daemons[of]) else {
            return;
        };
        if which == of {
            return;
        }
        let word = asked.guard.word(WEST, asked.applied);
        asks.guard.colleague(WEST, of as i32, &word, asks.applied);
    }

    fn apply(&mut self, which: usize) {
        let end = self.log.len() as u64;
        let Some(daemon) = &mut self.daemons[which] else {
            return;
        };
        daemon.applied = end.min(daemon.applied + 1);
        let index = daemon.applied;
        if self.log[index as usize - 1] == Entry::Unguard {
            let word = unguarded(index);
            daemon
                .guard
                .operator(WEST, Some(&word), Some(daemon.registered as i64));
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Kill(which) => self.kill(which),
            Step::Start(which) => self.start(which),
            Step::Apply(which) => self.apply(which),
            Step::Ask(which) => self.ask(which),
            Step::AskDaemon(which, of) => self.ask_daemon(which, of),
            Step::FailOver => self.taken = true,
            Step::Tell if self.taken && self.majority() && !self.log.contains(&Entry::GiveWay) => {
                self.append(Entry::GiveWay);
            }
            Step::Operator if self.majority() => {
                self.append(Entry::Unguard);
                self.heard = true;
            }
            Step::Tell | Step::Operator => {}
        }
    }

    /// What must never be: a daemon that takes writes without a word in this run; or after a word from a cluster that had
    /// taken over, without the fence.
    fn judge(&self) -> Result<(), String> {
        for (number, daemon) in self.daemons.iter().enumerate() {
            let Some(daemon) = daemon else { continue };
            let writable = daemon.guard.waits_for(ORDERS).is_none() && !self.has(daemon, Entry::GiveWay);
            if writable && self.founded && !self.heard {
                return Err(format!("daemon {number} takes writes, and nobody was heard"));
            }
            if writable && self.heard_after {
                return Err(format!("daemon {number} takes writes beside the other cluster"));
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nobody_takes_writes_in_a_run_in_which_nobody_was_heard(
        steps in prop::collection::vec(step(), 1..80),
        ahead in 0..3u64,
    ) {
        let mut world = World { ahead, ..World::default() };
        for which in 0..3 {
            world.start(which);
        }
        world.heard = true;
        for (number, step) in steps.iter().enumerate() {
            world.step(step);
            let judged = world.judge();
            prop_assert!(judged.is_ok(), "{judged:?} after step {number} of {steps:?}");
        }
    }

    #[test]
    fn daemons_that_start_one_by_one_are_never_held_up(order in prop::collection::vec(0..3usize, 1..40)) {
        let mut world = World::default();
        for which in 0..3 {
            world.start(which);
        }
        // From here on a start would be guarded, were there not those that run.
        (world.founded, world.heard) = (true, true);
        for which in order {
            world.kill(which);
            world.start(which);
            for of in (0..3).filter(|of| *of != which) {
                let end = world.log.len() as u64;
                if let Some(daemon) = &mut world.daemons[which] {
                    daemon.applied = end;
                }
                world.ask_daemon(which, of);
            }
            let daemon = world.daemons[which].as_ref().unwrap();
            prop_assert!(daemon.guard.waits_for(ORDERS).is_none());
        }
    }
}

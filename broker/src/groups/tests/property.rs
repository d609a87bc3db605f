//! Processes that join, sync, leave, die, repeat themselves and lie in any order: what must hold after every step.

use proptest::prelude::*;

use super::*;

const PROCESSES: usize = 6;
/// The last ones are static, two of them under the same instance id.
const INSTANCES: [Option<&str>; PROCESSES] = [None, None, None, Some("i"), Some("j"), Some("j")];

#[derive(Debug, Clone, Copy)]
enum Op {
    Join { who: usize, taste: u8 },
    JoinOldClient { who: usize },
    Sync { who: usize },
    SyncOldGeneration { who: usize },
    Heartbeat { who: usize },
    Commit { who: usize },
    Leave { who: usize },
    Forget { who: usize },
    Pass { ms: i64 },
    Write { succeeds: bool },
}

fn op() -> impl Strategy<Value = Op> {
    let who = 0..PROCESSES;
    prop_oneof![
        8 => (who.clone(), 0..4u8).prop_map(|(who, taste)| Op::Join { who, taste }),
        2 => who.clone().prop_map(|who| Op::JoinOldClient { who }),
        8 => who.clone().prop_map(|who| Op::Sync { who }),
        1 => who.clone().prop_map(|who| Op::SyncOldGeneration { who }),
        6 => who.clone().prop_map(|who| Op::Heartbeat { who }),
        2 => who.clone().prop_map(|who| Op::Commit { who }),
        1 => who.clone().prop_map(|who| Op::Leave { who }),
        1 => who.prop_map(|who| Op::Forget { who }),
        4 => prop_oneof![Just(10), 1..4_000i64, Just(9_000), Just(61_000)].prop_map(|ms| Op::Pass { ms }),
        6 => prop::bool::weighted(0.8).prop_map(|succeeds| Op::Write { succeeds }),
    ]
}

/// One client: what it was told last.
#[derive(Debug, Clone, Default)]
struct Process {
    member_id: MemberId,
    generation: i32,
    /// Told to lead this generation.
    leads: Option<Vec<MemberId>>,
}

struct World {
    table: Table,
    processes: Vec<Process>,
    join_of: BTreeMap<RequestId, usize>,
    sync_of: BTreeMap<RequestId, (usize, MemberId, i32)>,
    checked: std::collections::BTreeSet<RequestId>,
    /// The newest id of each older one that was replaced.
    replaced: BTreeMap<MemberId, MemberId>,
    /// For each generation the number that its assignment carries.
    assigned: BTreeMap<i32, u64>,
    assignments: u64,
    generation: i32,
}

impl World {
    fn new(initial_delay_ms: i32) -> World {
        let settings =
            GroupSettings { initial_rebalance_delay_ms: initial_delay_ms, members_max: 4, ..settings() };
        let mut table = Table::with(settings);
        table.writes_at_once = false;
        World {
            table,
            processes: vec![Process::default(); PROCESSES],
            join_of: BTreeMap::new(),
            sync_of: BTreeMap::new(),
            checked: std::collections::BTreeSet::new(),
            replaced: BTreeMap::new(),
            assigned: BTreeMap::new(),
            assignments: 0,
            generation: 0,
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Join { who, taste } => self.join(who, taste, true),
            Op::JoinOldClient { who } => self.join(who, 0, INSTANCES[who].is_some()),
            Op::Sync { who } => self.sync(who, self.processes[who].generation),
            Op::SyncOldGeneration { who } => self.sync(who, self.processes[who].generation - 1),
            Op::Heartbeat { who } => {
                let Process { member_id, generation, .. } = self.processes[who].clone();
                let answer =
                    self.table.group.on_heartbeat(&member_id, INSTANCES[who], generation, self.table.now);
                if answer.is_ok() {
                    assert_eq!(generation, self.table.group.generation());
                }
            }
            Op::Commit { who } => {
                let Process { member_id, generation, .. } = self.processes[who].clone();
                let commit = CommitFrom {
                    member_id: &member_id,
                    instance_id: INSTANCES[who],
                    generation,
                    is_transactional: false,
                };
                let answer = self.table.group.on_commit(&commit, self.table.now);
                assert!(answer.is_err() || generation == self.table.group.generation());
            }
            Op::Leave { who } => {
                let member_id = Arc::clone(&self.processes[who].member_id);
                self.table.leave(&[(&member_id, INSTANCES[who])]);
            }
            Op::Forget { who } => self.processes[who] = Process::default(),
            Op::Pass { ms } => self.table.pass(ms),
            Op::Write { succeeds } => {
                if !self.table.unwritten.is_empty() {
                    let error = GroupError::CoordinatorNotAvailable;
                    self.table.write(if succeeds { Ok(()) } else { Err(error) });
                }
            }
        }
        self.check();
    }

    fn join(&mut self, who: usize, taste: u8, is_new_client: bool) {
        let lists: [&[(&str, &str)]; 4] = [
            &[("range", "1"), ("sticky", "1")],
            &[("sticky", "1"), ("range", "1")],
            &[("range", "2"), ("sticky", "1")],
            &[("sticky", "2"), ("only", "")],
        ];
        let join = Join {
            member_id: Arc::clone(&self.processes[who].member_id),
            instance_id: INSTANCES[who].map(Arc::from),
            protocols: protocols(lists[usize::from(taste)]),
            needs_known_member_id: is_new_client,
            may_skip_assignment: taste.is_multiple_of(2),
            ..consumer("c")
        };
        let request = self.table.join(join);
        self.join_of.insert(request, who);
    }

    /// A process that was told to lead assigns to all it was told of, each time something else.
    fn sync(&mut self, who: usize, generation: i32) {
        let process = self.processes[who].clone();
        self.assignments += 1;
        let number = self.assignments;
        let assign = |m: &MemberId| (Arc::clone(m), Bytes::from(format!("{generation} {number} {m}")));
        let request = self.table.sync_with(Sync {
            instance_id: INSTANCES[who].map(Arc::from),
            assignments: process.leads.iter().flatten().map(assign).collect(),
            ..plain_sync(&process.member_id, generation)
        });
        self.sync_of.insert(request, (who, process.member_id, generation));
    }

    fn check(&mut self) {
        assert!(self.table.group.generation() >= self.generation, "generations never go back");
        self.generation = self.table.group.generation();
        self.table.group.check_consistency();
        let joins: Vec<RequestId> = self.join_of.keys().copied().collect();
        for request in joins {
            if self.table.join_answer(request).is_some() && self.checked.insert(request) {
                self.check_join(request);
            }
        }
        let syncs: Vec<RequestId> = self.sync_of.keys().copied().collect();
        for request in syncs {
            if let Some(answer) = self.table.sync_answer(request)
                && self.checked.insert(request)
                && let Ok(assignment) = answer
            {
                self.check_assignment(request, &assignment);
            }
        }
    }

    fn check_join(&mut self, request: RequestId) {
        let who = self.join_of[&request];
        let process = &mut self.processes[who];
        match self.table.joins[&request].clone().expect("an answer") {
            Ok(joined) => {
                if INSTANCES[who].is_some() && !process.member_id.is_empty() {
                    self.replaced.insert(Arc::clone(&process.member_id), Arc::clone(&joined.member_id));
                }
                assert!(joined.generation <= self.generation);
                let is_leader = joined.leader == joined.member_id;
                assert_eq!(is_leader, !joined.members.is_empty(), "the leader alone is told of the members");
                let told: Vec<MemberId> = joined.members.iter().map(|m| Arc::clone(&m.id)).collect();
                assert!(!is_leader || told.contains(&joined.member_id));
                let leads = (is_leader && !joined.skip_assignment).then_some(told);
                *process = Process { member_id: joined.member_id, generation: joined.generation, leads };
            }
            Err(refused) => {
                process.leads = None;
                match refused.error {
                    GroupError::MemberIdRequired => process.member_id = refused.member_id,
                    GroupError::UnknownMemberId | GroupError::FencedInstanceId | GroupError::GroupFull => {
                        *process = Process::default();
                    }
                    _ => {}
                }
            }
        }
    }

    /// Only members get something, only their own, and all of a generation from one assignment that is in the log.
    fn check_assignment(&mut self, request: RequestId, assignment: &Bytes) {
        let (who, member_id, generation) = self.sync_of[&request].clone();
        let written =
            self.table.written.iter().filter(|w| w.generation == generation && !w.members.is_empty());
        assert!(written.count() > 0, "what is not written is told to nobody");
        if assignment.is_empty() {
            return;
        }
        let text = std::str::from_utf8(assignment).expect("text");
        let parts: Vec<&str> = text.splitn(3, ' ').collect();
        assert_eq!(parts[0], generation.to_string(), "the assignment is of the generation asked for");
        let number: u64 = parts[1].parse().expect("a number");
        let first = *self.assigned.entry(generation).or_insert(number);
        assert_eq!(first, number, "one assignment in a generation");
        let is_own = parts[2] == &*member_id
            || INSTANCES[who].is_some_and(|instance| parts[2].starts_with(&format!("{instance}-")));
        assert!(is_own, "{member_id} is told {text}");
    }

    /// Nobody asks for anything any more: everybody is answered, and the group comes to rest.
    fn come_to_rest(&mut self) {
        for _ in 0..4 {
            while !self.table.unwritten.is_empty() {
                self.table.write(Ok(()));
            }
            self.table.pass(3_600_000);
            self.check();
        }
        assert!(self.table.joins.values().all(Option::is_some), "a join is not answered");
        assert!(self.table.syncs.values().all(Option::is_some), "a sync is not answered");
        assert_eq!(self.table.group.state(), GroupState::Empty);
        assert_eq!(self.table.group.deadline(), None);
        assert!(self.table.group.is_deserted());
    }
}

impl Group {
    /// What is kept twice agrees, and the state goes with the members.
    fn check_consistency(&self) {
        assert_eq!(self.members_bytes, self.members.values().map(|m| m.size_bytes()).sum::<usize>());
        let mut supported: std::collections::HashMap<Arc<str>, usize> = std::collections::HashMap::new();
        for protocol in self.members.values().flat_map(|m| &m.protocols) {
            *supported.entry(Arc::clone(&protocol.name)).or_default() += 1;
        }
        assert_eq!(self.supported, supported);
        let statics = self.members.values().filter_map(|m| Some((m.instance_id.clone()?, m.id.clone())));
        assert_eq!(self.static_members, statics.collect());
        // A generation of those who may join, those of the one before who have not come back, and static ones that are away.
        assert!(self.members.len() <= 2 * 4 + 2, "{} members", self.members.len());
        let has_members = !self.members.is_empty();
        match self.state() {
            GroupState::Empty => assert!(!has_members),
            GroupState::CompletingRebalance | GroupState::Stable => assert!(has_members),
            GroupState::PreparingRebalance | GroupState::Dead => {}
        }
        let is_settled = matches!(self.state(), GroupState::CompletingRebalance | GroupState::Stable);
        if is_settled {
            let leader = self.leader.as_ref().expect("a leader");
            assert!(self.members.contains_key(leader));
            let protocol = self.protocol.as_ref().expect("a protocol");
            assert!(self.members.values().all(|m| m.protocols.iter().any(|p| p.name == *protocol)));
        }
        for member in self.members.values() {
            assert!(member.session_until.is_some() || member.is_excused(), "{} is never missed", member.id);
            assert!(member.session_until.is_none_or(|until| until >= self.wake_at));
        }
        assert!(self.pending_joins.values().all(|until| *until >= self.wake_at));
        assert!(self.sync_until.is_none_or(|until| until >= self.wake_at));
        assert!(self.pending_syncs.iter().all(|id| self.members.contains_key(id)));
        assert_eq!(self.pending_syncs.is_empty(), self.sync_until.is_none());
    }
}

proptest! {
    #[test]
    fn whatever_processes_do_every_step_keeps_the_rules(
        ops in prop::collection::vec(op(), 1..200),
        initial_delay_ms in prop_oneof![Just(0), Just(3_000)],
    ) {
        let mut world = World::new(initial_delay_ms);
        for op in ops {
            world.run(op);
        }
        world.come_to_rest();
    }
}

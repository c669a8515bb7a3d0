//! Declaring, changing and removing flows by command: what a set of declarations would change, and then doing it.
//!
//! A plan looks at the source of every flow that it is about, and changes nothing. Applying makes the same plan first: what a
//! plan complains of is not applied unless that is asked for; what is no declaration at all never is. Nothing is ever removed
//! because a set lacks it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tradewind_wire::flow::{FlowSource, FlowSpec, HEARTBEATS_TOPIC};

use crate::discovery::{Action, actions};
use crate::flow::Flow;
use crate::matching::matches;
use crate::naming::Names;
use crate::origins;
use crate::runner::{Inner, Mirror};
use crate::status::{FlowStatus, awaits};
use crate::target::{CommandError, FlowState, FlowView, Target, View};

/// What one flow of a plan comes to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowPlan {
    /// `source->target`.
    pub flow: String,
    /// `added`, `changed`, `unchanged`, or `not-given` for one that is declared and not in the set: it stays as it is.
    pub change: String,
    /// What changes in its declaration.
    pub fields: Vec<FieldChange>,
    /// Topics that would be created here.
    pub creates: Vec<PlannedTopic>,
    /// Mirror topics here that the flow would not copy any more: they stay, read-only.
    pub stops: Vec<String>,
    /// What is as it should be and may still surprise.
    pub notes: Vec<String>,
    /// What stands in the way, one sentence each: names that are taken or too long, a source that does not answer.
    pub problems: Vec<String>,
}

impl FlowPlan {
    /// Whether applying it is refused unless it is forced: it would change something, and there are problems. What is declared
    /// already has its problems in any case.
    pub fn is_refused(&self) -> bool {
        matches!(self.change.as_str(), "added" | "changed") && !self.problems.is_empty()
    }
}

/// One field of a declaration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FieldChange {
    /// Its name.
    pub field: String,
    /// As declared; null if the flow is not.
    pub declared: serde_json::Value,
    /// As given.
    pub given: serde_json::Value,
}

/// A topic that would be created.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedTopic {
    /// Its name at the source.
    pub source: String,
    /// Its name here.
    pub here: String,
    /// How many partitions it has.
    pub partitions: i32,
}

/// A flow that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedFlow {
    /// `source->target`.
    pub flow: String,
    /// The mirror topics that it leaves: read-only, as they are.
    pub topics: Vec<String>,
}

/// Why flows were not declared or removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeclareError {
    /// No daemon could carry these out.
    #[error("nothing was changed: {}", .0.join("; "))]
    Invalid(Vec<String>),
    /// The plan complains.
    #[error("nothing was changed: {}", .0.join("; "))]
    Problems(Vec<String>),
    /// No such flow.
    #[error("no flow `{0}` into this cluster: `mirror status` names them")]
    UnknownFlow(String),
    /// The metadata log refused it.
    #[error("flow `{flow}`: {reason}")]
    Refused {
        /// The flow.
        flow: String,
        /// Why.
        reason: String,
    },
    /// The metadata log did not answer; it may or may not have taken effect.
    #[error("flow `{0}`: no answer from the controller; repeat the command")]
    Unavailable(String),
}

fn failed(flow: &str, error: CommandError) -> DeclareError {
    match error {
        CommandError::Unavailable | CommandError::Stale => DeclareError::Unavailable(flow.to_owned()),
        error => DeclareError::Refused {
            flow: flow.to_owned(),
            reason: error.to_string(),
        },
    }
}

impl Mirror {
    /// What declaring these flows would change, with a look at the source of each. Changes nothing.
    pub async fn plan(&self, specs: &[FlowSpec]) -> Vec<FlowPlan> {
        let inner = &self.inner;
        let flow_of = |spec: &FlowSpec, names| {
            let mut flow = inner.flow_of(spec, names);
            // What a plan sees of other addresses is no news for the flow that runs.
            let seen = flow.seen.lock().clone();
            flow.seen = Arc::new(Mutex::new(seen));
            // The same source need not say all of it again.
            let running = inner.flow(&flow.name);
            if let Some(running) = running.filter(|running| running.spec.source == flow.spec.source) {
                flow.hearing = running.hearing.known();
            }
            flow
        };
        plan(&inner.target, specs, flow_of).await
    }

    /// Declares these flows, unless the plan complains; with `force` all the same. Others stay as they are. Answers the plan.
    /// What cannot be carried out at all is refused before anything is looked at.
    pub async fn apply(&self, specs: &[FlowSpec], force: bool) -> Result<Vec<FlowPlan>, DeclareError> {
        let invalid = invalid(specs, self.inner.target.cluster_name());
        if !invalid.is_empty() {
            return Err(DeclareError::Invalid(invalid));
        }
        let plans = self.plan(specs).await;
        apply(&self.inner.target, specs, &plans, force).await?;
        Ok(plans)
    }

    /// Removes a flow. Its mirror topics stay as they are and read-only, and are told of by [`Mirror::status`]; declared again,
    /// it goes on where they stand. Repeating it answers the same. `forget_source`: although a source that was failed over has
    /// not heard of it yet, or waits to be brought back.
    pub async fn remove(&self, flow: &str, forget_source: bool) -> Result<RemovedFlow, DeclareError> {
        remove(&self.inner.target, flow, forget_source).await
    }
}

/// What is wrong with declarations whatever either side is like.
fn invalid(specs: &[FlowSpec], own: &str) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, spec) in specs.iter().enumerate() {
        let name = spec.name();
        let mut wrong = |what: String| problems.push(format!("{name}: {what}"));
        if spec.target_cluster != own {
            wrong(format!(
                "it goes into `{}`, and this is `{own}`",
                spec.target_cluster
            ));
        }
        if spec.source_cluster == own {
            wrong("a flow comes from another cluster".to_owned());
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if spec.source_cluster.is_empty() || !spec.source_cluster.chars().all(legal) {
            wrong("a cluster's name holds letters, digits, `.`, `_` and `-`".to_owned());
        }
        let (FlowSource::Mesh(addresses) | FlowSource::Kafka(addresses)) = &spec.source;
        if addresses.is_empty() {
            wrong("its source has no address".to_owned());
        }
        if specs[..number].iter().any(|other| other.name() == name) {
            wrong("it is given twice; one flow carries all topics of its source".to_owned());
        }
        if let Err(error) = Names::new(spec) {
            problems.push(error.to_string());
        }
    }
    problems
}

/// What declaring these flows would change. `flow_of` makes a flow that is asked, and never run.
async fn plan(
    target: &Arc<dyn Target>,
    specs: &[FlowSpec],
    flow_of: impl Fn(&FlowSpec, Names) -> Flow,
) -> Vec<FlowPlan> {
    let now = target.view();
    let after = with_declared(&now, specs);
    let plans = specs.iter().map(|spec| {
        let flow = Names::new(spec).map(|names| flow_of(spec, names));
        let (now, after) = (&now, &after);
        async move {
            let mut plan = declaration(now, spec);
            plan.problems
                .extend(invalid(std::slice::from_ref(spec), target.cluster_name()));
            if let Ok(flow) = flow {
                look(&mut plan, now, after, &flow).await;
            }
            plan
        }
    });
    let mut plans = join_all(plans).await;
    clashes(&mut plans, &now);
    for name in now.flows.keys() {
        if !specs.iter().any(|spec| spec.name() == *name) {
            plans.push(empty(name, "not-given"));
        }
    }
    plans
}

/// Topics that would be created and cannot be, because of a name that Kafka takes for the same, or that two flows would have.
fn clashes(plans: &mut [FlowPlan], now: &View) {
    let folded = |name: &str| name.replace('.', "_");
    let mut known: BTreeMap<String, String> = now
        .topics
        .keys()
        .map(|name| (folded(name), format!("`{name}`, which exists here")))
        .collect();
    for plan in plans {
        for topic in &plan.creates {
            match known.get(&folded(&topic.here)) {
                Some(other) => plan.problems.push(format!(
                    "{}: `{}` cannot be told from {other}",
                    topic.source, topic.here
                )),
                None => {
                    let told = format!("`{}` of flow `{}`", topic.here, plan.flow);
                    known.insert(folded(&topic.here), told);
                }
            }
        }
    }
}

/// Declares what a plan says is new or changed.
async fn apply(
    target: &Arc<dyn Target>,
    specs: &[FlowSpec],
    plans: &[FlowPlan],
    force: bool,
) -> Result<(), DeclareError> {
    let told = |plan: &FlowPlan| -> Vec<String> {
        let all = plan.problems.iter();
        all.map(|problem| format!("{}: {problem}", plan.flow)).collect()
    };
    let refused = plans.iter().filter(|plan| plan.is_refused());
    let problems: Vec<String> = refused.flat_map(told).collect();
    if !problems.is_empty() && !force {
        return Err(DeclareError::Problems(problems));
    }
    for spec in specs {
        let name = spec.name();
        let changes = |plan: &&FlowPlan| plan.flow == name && plan.change != "unchanged";
        if plans.iter().any(|plan| changes(&plan)) {
            let done = target.declare_flow(spec.clone()).await;
            done.map_err(|error| failed(&name, error))?;
        }
    }
    Ok(())
}

/// Forgets a flow. Its mirror topics stay as they are, and nobody writes them.
async fn remove(
    target: &Arc<dyn Target>,
    name: &str,
    forget_source: bool,
) -> Result<RemovedFlow, DeclareError> {
    let view = target.view();
    if !view.flows.contains_key(name) && !view.removed_flows.contains_key(name) {
        return Err(DeclareError::UnknownFlow(name.to_owned()));
    }
    let done = target.remove_flow(name, forget_source).await;
    done.map_err(|error| failed(name, error))?;
    Ok(RemovedFlow {
        flow: name.to_owned(),
        topics: left(&target.view(), name),
    })
}

/// The mirror topics that a removed flow has left.
fn left(view: &View, flow: &str) -> Vec<String> {
    let topics = view.topics_of(flow).filter(|(_, bound)| !bound.promoted);
    topics.map(|(topic, _)| topic.name.clone()).collect()
}

fn empty(flow: &str, change: &str) -> FlowPlan {
    FlowPlan {
        flow: flow.to_owned(),
        change: change.to_owned(),
        fields: Vec::new(),
        creates: Vec::new(),
        stops: Vec::new(),
        notes: Vec::new(),
        problems: Vec::new(),
    }
}

/// The picture in which these flows are declared.
fn with_declared(now: &View, specs: &[FlowSpec]) -> View {
    let mut after = now.clone();
    for spec in specs {
        let declared = after.flows.entry(spec.name()).or_insert_with(|| FlowView {
            spec: spec.clone(),
            state: FlowState::Active,
            paused: None,
            switchover: None,
            failback: None,
            drills: Vec::new(),
        });
        declared.spec = spec.clone();
    }
    after
}

/// What changes in the declaration itself.
fn declaration(now: &View, spec: &FlowSpec) -> FlowPlan {
    let name = spec.name();
    let Some(known) = now.flows.get(&name) else {
        let mut plan = empty(&name, "added");
        plan.problems.extend(keeps_names(now, spec));
        if now.removed_flows.contains_key(&name) {
            plan.notes
                .push("it was removed; it goes on where its topics stand".to_owned());
        }
        return plan;
    };
    if known.spec == *spec {
        return empty(&name, "unchanged");
    }
    let mut plan = empty(&name, "changed");
    plan.fields = changes(&known.spec, spec);
    if matches!(known.state, FlowState::SwitchingOver | FlowState::FailingOver) {
        plan.problems
            .push("it is being moved: it cannot be changed until that is done".to_owned());
    }
    let mut lost = known.failback.iter();
    if lost.any(|failback| failback.bars(&known.spec, spec)) {
        let problem = "it was failed over, and its source has not come back: until then its naming and the kind of its source stay";
        plan.problems.push(problem.to_owned());
    } else if known.spec.naming != spec.naming {
        plan.problems.extend(keeps_names(now, spec));
    }
    plan
}

/// That the flow's mirror topics have other names than its naming gives: the metadata log refuses that.
fn keeps_names(now: &View, spec: &FlowSpec) -> Option<String> {
    let flow = spec.name();
    let (topic, _) = now.topics_of(&flow).find(|(topic, bound)| {
        !bound.promoted
            && bound.source_topic != HEARTBEATS_TOPIC
            && spec
                .naming
                .target_topic(&spec.source_cluster, &bound.source_topic)
                != topic.name
    })?;
    Some(format!(
        "it cannot have another naming: its mirror topic `{}` keeps its name. Keep the naming, or delete the flow's mirror topics \
         first",
        topic.name
    ))
}

/// The fields in which two declarations differ.
fn changes(declared: &FlowSpec, given: &FlowSpec) -> Vec<FieldChange> {
    let fields = |spec: &FlowSpec| -> BTreeMap<String, serde_json::Value> {
        match serde_json::to_value(spec) {
            Ok(serde_json::Value::Object(fields)) => fields.into_iter().collect(),
            _ => BTreeMap::new(),
        }
    };
    let (declared, mut given) = (fields(declared), fields(given));
    let change = |(field, declared): (String, serde_json::Value)| {
        let given = given.remove(&field).unwrap_or_default();
        (declared != given).then_some(FieldChange {
            field,
            declared,
            given,
        })
    };
    declared.into_iter().filter_map(change).collect()
}

/// That a daemon's configuration says otherwise of a flow than what is declared.
pub(crate) fn otherwise_in_file(inner: &Inner, name: &str) -> Option<String> {
    let given = inner.in_file.iter().find(|spec| spec.name() == name)?;
    let view = inner.target.view();
    let changes = changes(&view.flows.get(name)?.spec, given);
    let fields: Vec<String> = changes.into_iter().map(|change| change.field).collect();
    (!fields.is_empty()).then(|| {
        format!(
            "the file of daemon {} says otherwise ({}), and what is declared holds: `mirror plan` shows both, `mirror apply` \
             declares the file",
            inner.target.node_id(),
            fields.join(", ")
        )
    })
}

/// Flows that were removed and have left mirror topics.
pub(crate) fn removed(view: &View) -> Vec<FlowStatus> {
    let flows = view.removed_flows.keys();
    let left = flows.map(|flow| (flow, left(view, flow)));
    left.filter(|(_, topics)| !topics.is_empty())
        .map(|(flow, topics)| FlowStatus::removed(flow, &topics))
        .collect()
}

/// What the source has, and what of it would come here.
async fn look(plan: &mut FlowPlan, now: &View, after: &View, flow: &Flow) {
    let state = now.flows.get(&flow.name).map(|known| known.state);
    if state == Some(FlowState::Promoted) {
        plan.notes
            .push("it was failed over: it copies nothing, whatever is declared".to_owned());
        return;
    }
    for (topic, bound) in now.topics_of(&flow.name) {
        if !bound.promoted && !flow.names.takes_topic(&bound.source_topic, false) {
            plan.stops.push(topic.name.clone());
        }
    }
    let mut topics = match flow.topics().await {
        Ok(topics) => topics,
        Err(error) => {
            plan.problems
                .push(format!("its source cannot be looked at: {error}"));
            return;
        }
    };
    let seen = flow.seen.lock().clone();
    let mut found = matches(&flow.name, &flow.names, &topics, after, &seen);
    if !found.awaited.is_empty() {
        origins::add_now(flow, &mut topics, origins::BESIDE).await;
        found = matches(&flow.name, &flow.names, &topics, after, &seen);
    }
    let configs = found
        .topics
        .iter()
        .map(|topic| (topic.source.clone(), Vec::new()));
    let (actions, problems) = actions(&flow.name, &found, &configs.collect(), after);
    for action in actions {
        if let Action::Create(new) = action {
            plan.creates.push(PlannedTopic {
                source: new.binding.source_topic,
                here: new.name,
                partitions: new.partitions,
            });
        }
    }
    plan.problems.extend(problems);
    plan.problems.extend(found.problems.iter().cloned());
    let awaited = found.awaited.iter();
    plan.problems.extend(awaited.map(|topic| awaits(topic)));
    plan.notes.extend(found.notes());
}

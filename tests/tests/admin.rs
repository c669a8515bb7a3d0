//! What administrators do, against real daemons: settings, elections, moves of replicas under load and across crashes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use tradewind_tests::load::{self, Load};
use tradewind_tests::{Cluster, ClusterSpec, Kafka, wait};
use tradewind_wire::compression::Codec;
use tradewind_wire::error::ErrorCode;
use tradewind_wire::messages::alter_partition_reassignments::{ReassignablePartition, ReassignableTopic};
use tradewind_wire::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreatableTopicResult,
};
use tradewind_wire::messages::describe_configs::{DescribeConfigsResource, DescribeConfigsResult};
use tradewind_wire::messages::describe_quorum::asked;
use tradewind_wire::messages::elect_leaders::TopicPartitions;
use tradewind_wire::messages::list_partition_reassignments::OngoingPartitionReassignment;
use tradewind_wire::messages::{
    AlterConfigsRequest, AlterPartitionReassignmentsRequest, CreateTopicsRequest, DescribeConfigsRequest,
    DescribeQuorumRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest,
    IncrementalAlterConfigsRequest, ListPartitionReassignmentsRequest, alter_configs,
    incremental_alter_configs,
};

const TOPIC: &str = "ledger";
/// Kafka's numbers of resource types and of operations on settings.
const OF_TOPIC: i8 = 2;
const OF_BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

fn create(kafka: &mut Kafka, topic: CreatableTopic, validate_only: bool) -> Result<CreatableTopicResult> {
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: 10_000,
        validate_only,
    };
    let mut response = kafka.any(&request, 7)?;
    response.topics.pop().context("an answer for the topic")
}

fn with_configs(name: &str, configs: &[(&str, &str)]) -> CreatableTopic {
    let config = |&(name, value): &(&str, &str)| CreatableTopicConfig {
        name: name.into(),
        value: Some(value.into()),
    };
    CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: -1,
        configs: configs.iter().map(config).collect(),
        ..Default::default()
    }
}

/// A topic whose partitions are on these daemons.
fn create_on(kafka: &mut Kafka, name: &str, replicas: &[&[i32]], configs: &[(&str, &str)]) -> Result<()> {
    let assignments = (0..)
        .zip(replicas)
        .map(|(number, replicas)| CreatableReplicaAssignment {
            partition_index: number,
            broker_ids: replicas.to_vec(),
        });
    let topic = CreatableTopic {
        num_partitions: -1,
        assignments: assignments.collect(),
        ..with_configs(name, configs)
    };
    let created = create(kafka, topic, false)?;
    ensure!(created.error_code == 0, "{created:?}");
    Ok(())
}

fn reassign(kafka: &mut Kafka, partition: i32, replicas: Option<&[i32]>) -> Result<ErrorCode> {
    let request = AlterPartitionReassignmentsRequest {
        topics: vec![ReassignableTopic {
            name: TOPIC.into(),
            partitions: vec![ReassignablePartition {
                partition_index: partition,
                replicas: replicas.map(<[_]>::to_vec),
            }],
        }],
        ..Default::default()
    };
    let response = kafka.any(&request, 1)?;
    ensure!(response.error_code == 0, "{response:?}");
    let topic = response.responses.first().context("an answer for the topic")?;
    let partition = topic.partitions.first().context("an answer for the partition")?;
    Ok(ErrorCode::from_code(partition.error_code))
}

/// Asks for a move until some daemon takes it, which happens only if it is right.
fn accepted(kafka: &mut Kafka, partition: i32, replicas: &[i32]) -> Result<()> {
    let ask = || reassign(kafka, partition, Some(replicas)).map(Some);
    let code = wait::until("the move is accepted", 30, ask)?;
    ensure!(code == ErrorCode::None, "{code:?}");
    Ok(())
}

fn moves(kafka: &mut Kafka) -> Result<Vec<OngoingPartitionReassignment>> {
    let request = ListPartitionReassignmentsRequest {
        topics: None,
        ..Default::default()
    };
    let response = kafka.any(&request, 0)?;
    ensure!(response.error_code == 0, "{response:?}");
    Ok(response
        .topics
        .into_iter()
        .flat_map(|topic| topic.partitions)
        .collect())
}

/// Waits until no replicas are moved, and this partition has these, all in sync.
fn moved(kafka: &mut Kafka, partition: usize, replicas: &[i32]) -> Result<()> {
    wait::until_true("the replicas are moved", 60, || {
        let left = moves(kafka)?;
        ensure!(left.is_empty(), "{left:?}");
        let partitions = kafka.partitions(TOPIC)?;
        let now = partitions.get(partition).context("the partition")?;
        ensure!(
            now.replica_nodes == replicas && now.isr_nodes.len() == replicas.len(),
            "{now:?}"
        );
        Ok(now.leader_id >= 0)
    })
}

/// Where a daemon keeps a partition of the topic.
fn directory(cluster: &Cluster, daemon: i32, partition: i32) -> Result<PathBuf> {
    let id = cluster
        .kafka()
        .metadata(TOPIC)?
        .topics
        .first()
        .context("the topic")?
        .topic_id;
    let daemon = cluster
        .daemons
        .iter()
        .find(|found| found.id == daemon)
        .context("the daemon")?;
    let topics = daemon.folder.join("data/topics");
    Ok(topics.join(id.to_string()).join(partition.to_string()))
}

fn moving_on(load: &Load, batches: u64) -> Result<()> {
    let before = load.batches();
    wait::until_true("writes go on", 60, || {
        ensure!(!load.has_failed(), "a writer gave up");
        Ok(load.batches() >= before + batches)
    })
}

#[test]
fn a_partition_moves_under_load_and_its_old_directory_goes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 3))?;
    let mut kafka = cluster.kafka();
    create_on(
        &mut kafka,
        TOPIC,
        &[&[1, 2], &[1, 3]],
        &[("min.insync.replicas", "2")],
    )?;
    let load = Load::start(|| cluster.kafka(), TOPIC, 2, Codec::Lz4);
    moving_on(&load, 100)?;
    ensure!(directory(&cluster, 1, 0)?.exists());
    ensure!(!directory(&cluster, 3, 0)?.exists());

    ensure!(reassign(&mut kafka, 0, Some(&[2, 3]))? == ErrorCode::None);
    moved(&mut kafka, 0, &[2, 3])?;
    let leader = kafka.partitions(TOPIC)?[0].leader_id;
    ensure!(leader == 2, "the leader was moved away; {leader} leads");
    moving_on(&load, 100)?;
    let (gone, here) = (directory(&cluster, 1, 0)?, directory(&cluster, 3, 0)?);
    wait::until_true("the old directory is deleted", 20, || Ok(!gone.exists()))?;
    ensure!(here.exists());
    ensure!(directory(&cluster, 1, 1)?.exists(), "the other partition stays");

    // There and back again, with another number of replicas on the way.
    ensure!(reassign(&mut kafka, 0, Some(&[1, 2, 3]))? == ErrorCode::None);
    moved(&mut kafka, 0, &[1, 2, 3])?;
    moving_on(&load, 50)?;
    ensure!(reassign(&mut kafka, 0, Some(&[1, 2]))? == ErrorCode::None);
    moved(&mut kafka, 0, &[1, 2])?;
    wait::until_true("the directory is deleted", 20, || Ok(!here.exists()))?;
    moving_on(&load, 50)?;
    for partition in load.stop()? {
        load::check(&mut kafka, TOPIC, &partition)?;
    }
    Ok(())
}

#[test]
fn a_move_survives_the_death_of_every_daemon() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 3))?;
    let mut kafka = cluster.kafka();
    create_on(&mut kafka, TOPIC, &[&[1, 2]], &[])?;
    let load = Load::start(|| cluster.kafka(), TOPIC, 1, Codec::None);
    moving_on(&load, 100)?;
    let written = load.stop()?;
    let old = directory(&cluster, 1, 0)?;

    // The move waits for a daemon that is not there.
    cluster.daemon(3)?.kill();
    accepted(&mut kafka, 0, &[3, 2])?;
    let waiting = moves(&mut kafka)?;
    ensure!(waiting.len() == 1, "{waiting:?}");
    ensure!(waiting[0].replicas == [3, 2, 1], "{waiting:?}");
    ensure!(
        waiting[0].adding_replicas == [3] && waiting[0].removing_replicas == [1],
        "{waiting:?}"
    );
    cluster.kill_all();
    cluster.start_all()?;
    moved(&mut kafka, 0, &[3, 2])?;
    wait::until_true("the old directory is deleted", 20, || Ok(!old.exists()))?;
    for partition in &written {
        load::check(&mut cluster.kafka(), TOPIC, partition)?;
    }

    // A daemon that was away when its replica went deletes it when it comes back.
    let left = directory(&cluster, 2, 0)?;
    cluster.daemon(2)?.kill();
    accepted(&mut kafka, 0, &[3, 1])?;
    moved(&mut kafka, 0, &[3, 1])?;
    ensure!(left.exists());
    cluster.start_all()?;
    wait::until_true("the left directory is deleted", 20, || Ok(!left.exists()))?;
    for partition in &written {
        load::check(&mut cluster.kafka(), TOPIC, partition)?;
    }
    Ok(())
}

#[test]
fn a_move_is_taken_back_and_impossible_ones_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 3))?;
    let mut kafka = cluster.kafka();
    create_on(&mut kafka, TOPIC, &[&[1, 2]], &[])?;
    ensure!(reassign(&mut kafka, 0, None)? == ErrorCode::NoReassignmentInProgress);
    ensure!(reassign(&mut kafka, 7, Some(&[1]))? == ErrorCode::UnknownTopicOrPartition);
    for bad in [&[][..], &[1, 1], &[1, 9]] {
        ensure!(
            reassign(&mut kafka, 0, Some(bad))? == ErrorCode::InvalidReplicaAssignment,
            "{bad:?}"
        );
    }
    cluster.daemon(3)?.kill();
    let load = Load::start(|| cluster.kafka(), TOPIC, 1, Codec::None);
    accepted(&mut kafka, 0, &[3, 2])?;
    moving_on(&load, 50)?;
    ensure!(moves(&mut kafka)?.len() == 1);
    ensure!(reassign(&mut kafka, 0, None)? == ErrorCode::None);
    moved(&mut kafka, 0, &[1, 2])?;
    moving_on(&load, 50)?;
    cluster.start_all()?;
    ensure!(!directory(&cluster, 3, 0)?.exists());
    for partition in load.stop()? {
        load::check(&mut kafka, TOPIC, &partition)?;
    }
    Ok(())
}

fn elect(kafka: &mut Kafka, election_type: i8, partitions: Option<&[i32]>) -> Result<Vec<(i32, ErrorCode)>> {
    let request = ElectLeadersRequest {
        election_type,
        topic_partitions: partitions.map(|partitions| {
            vec![TopicPartitions {
                topic: TOPIC.into(),
                partitions: partitions.to_vec(),
            }]
        }),
        ..Default::default()
    };
    let response = kafka.any(&request, 2)?;
    ensure!(response.error_code == 0, "{response:?}");
    let results = response.replica_election_results.iter();
    Ok(results
        .flat_map(|topic| &topic.partition_result)
        .map(|result| (result.partition_id, ErrorCode::from_code(result.error_code)))
        .collect())
}

#[test]
fn leaders_are_elected_by_choice() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 3))?;
    let mut kafka = cluster.kafka();
    create_on(&mut kafka, TOPIC, &[&[1], &[3]], &[])?;
    let (preferred, unclean) = (0, 1);
    ensure!(
        elect(&mut kafka, preferred, Some(&[0, 9]))?
            == [
                (0, ErrorCode::ElectionNotNeeded),
                (9, ErrorCode::UnknownTopicOrPartition)
            ]
    );
    ensure!(elect(&mut kafka, unclean, Some(&[0]))? == [(0, ErrorCode::ElectionNotNeeded)]);
    ensure!(
        elect(&mut kafka, preferred, None)?.is_empty(),
        "of all only those that needed one are told"
    );
    // Another preferred leader, which the present one makes in sync.
    ensure!(reassign(&mut kafka, 0, Some(&[2, 1]))? == ErrorCode::None);
    moved(&mut kafka, 0, &[2, 1])?;
    let elected = elect(&mut kafka, preferred, Some(&[0]))?;
    // The controller restores preferred leaders by itself, too.
    ensure!(
        matches!(elected[..], [(0, ErrorCode::None | ErrorCode::ElectionNotNeeded)]),
        "{elected:?}"
    );
    ensure!(kafka.partitions(TOPIC)?[0].leader_id == 2);

    cluster.daemon(3)?.kill();
    wait::until_true("the partition has no leader", 30, || {
        Ok(kafka.partitions(TOPIC).is_ok() && kafka.partitions(TOPIC)?[1].leader_id < 0)
    })?;
    ensure!(elect(&mut kafka, preferred, Some(&[1]))? == [(1, ErrorCode::PreferredLeaderNotAvailable)]);
    ensure!(elect(&mut kafka, unclean, Some(&[1]))? == [(1, ErrorCode::EligibleLeadersNotAvailable)]);
    Ok(())
}

#[test]
fn the_quorum_is_described_by_every_daemon_alike() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 3))?;
    let mut kafka = cluster.kafka();
    let request = DescribeQuorumRequest {
        topics: vec![asked::TopicData {
            topic_name: "__cluster_metadata".into(),
            partitions: vec![asked::PartitionData { partition_index: 0 }],
        }],
    };
    let addresses: Vec<_> = cluster.daemons.iter().map(|daemon| daemon.kafka).collect();
    let meshes: Vec<_> = cluster
        .daemons
        .iter()
        .map(|daemon| (daemon.id, daemon.mesh.port()))
        .collect();
    wait::until_true("all daemons tell the same", 30, || {
        let mut leaders = Vec::new();
        for &address in &addresses {
            let older = kafka.at(address, &request, 1)?;
            ensure!(older.error_code == 0, "{older:?}");
            let response = kafka.at(address, &request, 2)?;
            ensure!(response.error_code == 0, "{response:?}");
            let nodes: Vec<_> = response
                .nodes
                .iter()
                .map(|node| (node.node_id, node.listeners[0].port))
                .collect();
            ensure!(nodes == meshes, "{response:?}");
            let quorum = response.topics[0].partitions[0].clone();
            let voters: Vec<i32> = quorum
                .current_voters
                .iter()
                .map(|voter| voter.replica_id)
                .collect();
            // As many directories as voters, and none unknown.
            let directories: BTreeSet<_> = quorum
                .current_voters
                .iter()
                .map(|voter| voter.replica_directory_id)
                .filter(|id| !id.is_zero())
                .collect();
            ensure!(directories.len() == 3, "{quorum:?}");
            ensure!(voters == [1, 2, 3] && quorum.observers.is_empty(), "{quorum:?}");
            ensure!(quorum.high_watermark > 0, "{quorum:?}");
            ensure!((1..1_000).contains(&quorum.leader_epoch), "{quorum:?}");
            ensure!(
                quorum.current_voters.iter().all(|voter| voter.log_end_offset > 0),
                "{quorum:?}"
            );
            leaders.push((quorum.leader_id, quorum.leader_epoch));
        }
        Ok(leaders.iter().all(|leader| *leader == leaders[0] && leader.0 > 0))
    })
}

fn describe(kafka: &mut Kafka, resource_type: i8, name: &str) -> Result<DescribeConfigsResult> {
    let request = DescribeConfigsRequest {
        resources: vec![DescribeConfigsResource {
            resource_type,
            resource_name: name.into(),
            configuration_keys: None,
        }],
        include_synonyms: true,
        include_documentation: true,
    };
    let mut response = kafka.any(&request, 4)?;
    response.results.pop().context("an answer for the resource")
}

/// The value of a setting and where it comes from.
fn setting(kafka: &mut Kafka, name: &str) -> Result<(String, i8)> {
    let described = describe(kafka, OF_TOPIC, TOPIC)?;
    ensure!(described.error_code == 0, "{described:?}");
    let found = described.configs.iter().find(|config| &*config.name == name);
    let found = found.with_context(|| format!("{name} is described"))?;
    let value = found.value.as_ref().context("a value")?;
    Ok((value.to_string(), found.config_source))
}

fn alter(
    kafka: &mut Kafka,
    resource: (i8, &str),
    changes: &[(&str, i8, Option<&str>)],
) -> Result<(ErrorCode, String)> {
    let change = |&(name, config_operation, value): &(&str, i8, Option<&str>)| {
        incremental_alter_configs::AlterableConfig {
            name: name.into(),
            config_operation,
            value: value.map(Into::into),
        }
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![incremental_alter_configs::AlterConfigsResource {
            resource_type: resource.0,
            resource_name: resource.1.into(),
            configs: changes.iter().map(change).collect(),
        }],
        validate_only: false,
    };
    let response = kafka.any(&request, 1)?;
    let answer = response.responses.first().context("an answer")?;
    let message = answer.error_message.as_ref().map(ToString::to_string);
    Ok((
        ErrorCode::from_code(answer.error_code),
        message.unwrap_or_default(),
    ))
}

fn replace(
    kafka: &mut Kafka,
    configs: &[(String, String)],
    validate_only: bool,
) -> Result<(ErrorCode, String)> {
    let config = |(name, value): &(String, String)| alter_configs::AlterableConfig {
        name: name.as_str().into(),
        value: Some(value.as_str().into()),
    };
    let request = AlterConfigsRequest {
        resources: vec![alter_configs::AlterConfigsResource {
            resource_type: OF_TOPIC,
            resource_name: TOPIC.into(),
            configs: configs.iter().map(config).collect(),
        }],
        validate_only,
    };
    let response = kafka.any(&request, 2)?;
    let answer = response.responses.first().context("an answer")?;
    let message = answer.error_message.as_ref().map(ToString::to_string);
    Ok((
        ErrorCode::from_code(answer.error_code),
        message.unwrap_or_default(),
    ))
}

const DYNAMIC_TOPIC: i8 = 1;
const DYNAMIC_BROKER: i8 = 2;
const DYNAMIC_ALL_BROKERS: i8 = 3;
const DEFAULT: i8 = 5;

#[test]
fn settings_of_topics_are_described_and_altered_as_kafka_does() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    let mut kafka = cluster.kafka();
    let created = create(&mut kafka, with_configs(TOPIC, &[("no.such.key", "1")]), false)?;
    ensure!(
        created.error_code == ErrorCode::InvalidConfig.code(),
        "{created:?}"
    );
    ensure!(
        kafka.partitions(TOPIC).is_err(),
        "nothing is created with an unknown setting"
    );
    let valid = create(
        &mut kafka,
        with_configs(TOPIC, &[("cleanup.policy", "compact")]),
        true,
    )?;
    ensure!(
        valid.error_code == 0 && kafka.partitions(TOPIC).is_err(),
        "{valid:?}"
    );
    let told = valid.configs.context("settings")?;
    ensure!(
        told.iter()
            .any(|config| &*config.name == "cleanup.policy" && config.value.as_deref() == Some("compact"))
    );
    let created = create(
        &mut kafka,
        with_configs(TOPIC, &[("cleanup.policy", "compact")]),
        false,
    )?;
    ensure!(created.error_code == 0, "{created:?}");
    let again = create(&mut kafka, with_configs(TOPIC, &[]), true)?;
    ensure!(
        again.error_code == ErrorCode::TopicAlreadyExists.code(),
        "{again:?}"
    );

    // Kafka Connect wants exactly this.
    ensure!(setting(&mut kafka, "cleanup.policy")? == ("compact".to_owned(), DYNAMIC_TOPIC));
    ensure!(setting(&mut kafka, "retention.ms")? == ("604800000".to_owned(), DEFAULT));
    // Set to the default is still set.
    let topic = (OF_TOPIC, TOPIC);
    ensure!(alter(&mut kafka, topic, &[("retention.ms", SET, Some("604800000"))])?.0 == ErrorCode::None);
    ensure!(setting(&mut kafka, "retention.ms")? == ("604800000".to_owned(), DYNAMIC_TOPIC));
    ensure!(
        alter(
            &mut kafka,
            topic,
            &[
                ("retention.ms", DELETE, None),
                ("cleanup.policy", APPEND, Some("delete"))
            ]
        )?
        .0 == ErrorCode::None
    );
    ensure!(setting(&mut kafka, "retention.ms")?.1 == DEFAULT);
    ensure!(setting(&mut kafka, "cleanup.policy")?.0 == "compact,delete");
    ensure!(
        alter(
            &mut kafka,
            topic,
            &[("cleanup.policy", SUBTRACT, Some("compact"))]
        )?
        .0 == ErrorCode::None
    );
    ensure!(setting(&mut kafka, "cleanup.policy")?.0 == "delete");

    let refused = [
        (("retention.ms", APPEND, Some("5")), ErrorCode::InvalidConfig),
        (("retention.ms", SET, Some("soon")), ErrorCode::InvalidConfig),
        (("retention.ms", SET, None), ErrorCode::InvalidRequest),
        (("no.such.key", SET, Some("1")), ErrorCode::InvalidConfig),
        (("no.such.key", DELETE, None), ErrorCode::None),
        (
            ("min.compaction.lag.ms", SET, Some("9223372036854775807")),
            ErrorCode::None,
        ),
        (
            ("max.compaction.lag.ms", SET, Some("5")),
            ErrorCode::InvalidConfig,
        ),
    ];
    for (change, expected) in refused {
        let (error, message) = alter(&mut kafka, topic, &[change])?;
        ensure!(error == expected, "{change:?}: {error:?} {message}");
    }

    // What is described can be given back, and then is set; what is not named returns to its default.
    let described = describe(&mut kafka, OF_TOPIC, TOPIC)?;
    let all = described.configs.iter().map(|config| {
        let value = config.value.as_ref().context("a value")?;
        Ok((config.name.to_string(), value.to_string()))
    });
    let all: Vec<_> = all.collect::<Result<_>>()?;
    ensure!(replace(&mut kafka, &all, true)?.0 == ErrorCode::None);
    ensure!(
        setting(&mut kafka, "segment.bytes")?.1 == DEFAULT,
        "it was only to be validated"
    );
    ensure!(replace(&mut kafka, &all, false)?.0 == ErrorCode::None);
    ensure!(setting(&mut kafka, "segment.bytes")? == ("1073741824".to_owned(), DYNAMIC_TOPIC));
    ensure!(replace(&mut kafka, &all[..1], false)?.0 == ErrorCode::None);
    ensure!(setting(&mut kafka, "segment.bytes")?.1 == DEFAULT);

    let unknown = describe(&mut kafka, OF_TOPIC, "nope")?;
    ensure!(
        unknown.error_code == ErrorCode::UnknownTopicOrPartition.code(),
        "{unknown:?}"
    );
    Ok(())
}

#[test]
fn settings_of_daemons_are_defaults_of_topics() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    let mut kafka = cluster.kafka();
    kafka.create_topic(TOPIC, 1, &[])?;
    ensure!(describe(&mut kafka, OF_BROKER, "")?.configs.is_empty());
    for wrong in ["2", "one"] {
        let described = describe(&mut kafka, OF_BROKER, wrong)?;
        ensure!(
            described.error_code == ErrorCode::InvalidRequest.code(),
            "{described:?}"
        );
        let altered = alter(
            &mut kafka,
            (OF_BROKER, wrong),
            &[("log.retention.ms", SET, Some("1"))],
        )?;
        ensure!(altered.0 == ErrorCode::InvalidRequest, "{altered:?}");
    }
    ensure!(
        alter(
            &mut kafka,
            (OF_BROKER, ""),
            &[("log.retention.ms", SET, Some("7000"))]
        )?
        .0 == ErrorCode::None
    );
    ensure!(setting(&mut kafka, "retention.ms")? == ("7000".to_owned(), DYNAMIC_ALL_BROKERS));
    ensure!(
        alter(
            &mut kafka,
            (OF_BROKER, "1"),
            &[("log.retention.ms", SET, Some("8000"))]
        )?
        .0 == ErrorCode::None
    );
    ensure!(setting(&mut kafka, "retention.ms")? == ("8000".to_owned(), DYNAMIC_BROKER));
    let all = describe(&mut kafka, OF_BROKER, "")?;
    ensure!(
        all.configs.len() == 1 && &*all.configs[0].name == "log.retention.ms",
        "{all:?}"
    );
    ensure!(all.configs[0].value.as_deref() == Some("7000"), "{all:?}");

    let own = describe(&mut kafka, OF_BROKER, "1")?;
    let find = |name: &str| own.configs.iter().find(|config| &*config.name == name);
    let id = find("broker.id").context("broker.id")?;
    ensure!(id.read_only && id.value.as_deref() == Some("1"), "{id:?}");
    let retention = find("log.retention.ms").context("log.retention.ms")?;
    ensure!(!retention.read_only, "{retention:?}");
    let sources: Vec<i8> = retention.synonyms.iter().map(|synonym| synonym.source).collect();
    ensure!(
        sources == [DYNAMIC_BROKER, DYNAMIC_ALL_BROKERS, DEFAULT],
        "{retention:?}"
    );
    let fixed = alter(&mut kafka, (OF_BROKER, "1"), &[("broker.id", SET, Some("2"))])?;
    ensure!(fixed.0 == ErrorCode::InvalidRequest, "{fixed:?}");
    // What Kafka's tool takes away after every move of replicas.
    let taken_away = alter(
        &mut kafka,
        (OF_BROKER, "1"),
        &[("leader.replication.throttled.rate", DELETE, None)],
    )?;
    ensure!(taken_away.0 == ErrorCode::None, "{taken_away:?}");
    Ok(())
}

#[test]
fn topics_are_described_page_by_page() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::start(folder.path(), &ClusterSpec::new("east", 1))?;
    let mut kafka = cluster.kafka();
    for topic in ["a", "b", "c"] {
        kafka.create_topic(topic, 3, &[])?;
    }
    let mut request = DescribeTopicPartitionsRequest {
        response_partition_limit: 4,
        ..Default::default()
    };
    let mut seen = Vec::new();
    loop {
        let page = kafka.any(&request, 0)?;
        let told: Vec<_> = page
            .topics
            .iter()
            .flat_map(|topic| {
                topic
                    .partitions
                    .iter()
                    .map(|partition| (topic.name.clone(), partition.clone()))
            })
            .collect();
        ensure!(told.len() <= 4 && !told.is_empty(), "{page:?}");
        seen.extend(told);
        request.cursor = page.next_cursor;
        if request.cursor.is_none() {
            break;
        }
    }
    ensure!(seen.len() == 9, "{seen:?}");
    ensure!(
        seen.iter()
            .all(|(_, partition)| partition.leader_id == 1 && partition.isr_nodes == [1]),
        "{seen:?}"
    );
    Ok(())
}

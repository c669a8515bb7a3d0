//! `tradewind demo`: two data centres on this machine, mirrored, and lines to try; or a region lost by itself.

mod drill;
mod world;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tradewind_client::admin::NewTopic;
use tradewind_wire::clock::Clock;

use self::world::{Region, World};
use crate::cli::{DemoArgs, DemoNaming, Failure, kafka};
use crate::clock::SystemClock;
use crate::signals;

/// Runs the demo until it is interrupted, or the drill to its end.
pub(crate) fn run(args: &DemoArgs) -> Result<u8, Failure> {
    if args.drill {
        return drill::run(args);
    }
    let runtime = kafka::runtime()?;
    let stop = runtime.block_on(async { signals::listen(false) })?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    eprintln!("starting {0} daemons in east and {0} in west", args.daemons);
    let mut world = World::start(args.daemons, args.naming, args.keep)?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            ready = prepare(&mut world, args, clock.as_ref()) => ready,
            () = stop.drain.cancelled() => bail!("interrupted"),
        }
    });
    outcome?;
    println!("{}", what_to_try(&world, args.naming)?);
    runtime.block_on(async {
        tokio::select! {
            () = stop.drain.cancelled() => {}
            () = world.watch() => {}
        }
    });
    eprintln!("ending");
    Ok(0)
}

/// Waits for both clusters and makes the topic that the lines to try speak of.
async fn prepare(world: &mut World, args: &DemoArgs, clock: &dyn Clock) -> anyhow::Result<()> {
    world.wait_until_ready(clock).await?;
    let topic = NewTopic {
        name: TOPIC.to_owned(),
        ..NewTopic::default()
    };
    kafka::client(&world.east.bootstrap())
        .create_topic(&topic)
        .await
        .context("cannot create a topic in east")?;
    // A consumer in west could not ask for the mirror before it is there: its topics are not created by being asked for.
    let mirror = mirror_of(TOPIC, args.naming);
    wait_for_topic(&world.west, &mirror, clock).await
}

/// Waits until `region` knows `topic`.
async fn wait_for_topic(region: &Region, topic: &str, clock: &dyn Clock) -> anyhow::Result<()> {
    let client = kafka::client(&region.bootstrap());
    let deadline = clock.monotonic() + MIRROR_TIMEOUT;
    loop {
        let last = match client.metadata_of_all().await {
            Ok(metadata) if metadata.topics.contains_key(topic) => return Ok(()),
            Ok(_) => "it is not there".to_owned(),
            Err(error) => error.to_string(),
        };
        if clock.monotonic() > deadline {
            bail!(
                "{topic} did not appear in {} within {MIRROR_TIMEOUT:?}: {last}",
                region.name
            );
        }
        tokio::time::sleep(POLL).await;
    }
}

fn mirror_of(topic: &str, naming: DemoNaming) -> String {
    match naming {
        DemoNaming::Prefix => format!("east.{topic}"),
        DemoNaming::Identity => topic.to_owned(),
    }
}

/// What is printed once everything serves. Its first address is a Kafka listener of east.
fn what_to_try(world: &World, naming: DemoNaming) -> anyhow::Result<String> {
    let program = std::env::current_exe()?;
    let here = std::env::current_dir().ok();
    let near = here.and_then(|here| {
        program
            .strip_prefix(here)
            .ok()
            .map(|path| Path::new(".").join(path))
    });
    let program = near.unwrap_or(program);
    let program = program.display();
    let mirror = mirror_of(TOPIC, naming);
    let (east, west) = (&world.east, &world.west);
    let (east_kafka, west_kafka) = (east.bootstrap().join(","), west.bootstrap().join(","));
    let url = format!("http://{}", west.daemons.first().context("no daemon")?.http);
    let east_url = format!("http://{}", east.daemons.first().context("no daemon")?.http);
    let processes: Vec<String> = east.process_ids().iter().map(u32::to_string).collect();
    Ok(format!(
        "
east    kafka {east_kafka}    http {east_url}
west    kafka {west_kafka}    http {url}
flow    east->west: `{TOPIC}` in east is `{mirror}` in west
folder  {folder}

write in east:
  echo hello | kcat -P -b {east_kafka} -t {TOPIC}
read in west:
  kcat -C -b {west_kafka} -t {mirror} -o beginning -e
see how far west is behind:
  {program} mirror status --url {url}
lose the east (kills its daemons):
  kill -9 {processes}
hand its topics to the clients of west:
  {program} failover 'east->west' --accept-loss --url {url}
write on in west:
  echo 'still here' | kcat -P -b {west_kafka} -t {mirror}

^C ends everything",
        folder = world.folder().display(),
        processes = processes.join(" "),
    ))
}

/// The topic that the lines to try speak of.
const TOPIC: &str = "orders";
const MIRROR_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

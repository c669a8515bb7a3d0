//! Who comes with the wrong papers: a peer cluster's daemon that wants into the Raft, and a cluster whose authority is not
//! the one that was pinned. The first is refused at its first frame, the second is told with the reason in `mirror status`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use tradewind_tests::{Cluster, Mesh, Naming, wait};
use tradewind_transport::{Expect, MeshConn, MeshOptions, MeshTls};
use tradewind_wire::mesh::{Conversation, Hello, Welcome};

/// A mesh endpoint with the papers of a cluster's first daemon, which trusts `other`'s authority for `other`.
fn endpoint(of: &Cluster, other: &Cluster) -> Result<tradewind_transport::Mesh> {
    let folder = &of.daemons.first().context("a daemon")?.folder;
    let pinned: [(String, PathBuf); 1] = [(other.name.clone(), other.authority())];
    let file = |name: &str| folder.join(name);
    let tls = MeshTls::load(&file("ca.pem"), &file("node.pem"), &file("node.key"), &pinned)?;
    let any: SocketAddr = "127.0.0.1:0".parse()?;
    Ok(tradewind_transport::Mesh::bind(
        any,
        Arc::new(tls),
        MeshOptions::new([7; 64]),
    )?)
}

/// What a daemon answers to this hello.
async fn hello(connection: &MeshConn, hello: Hello) -> Result<Welcome> {
    let (mut tx, mut rx) = connection.open().await?;
    tx.send(&[hello.encode()]).await?;
    let frame = rx.recv().await?.context("no welcome")?;
    Ok(Welcome::decode(frame)?)
}

#[test]
fn a_peer_clusters_daemon_gets_no_stream_but_those_of_a_mirror() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = Mesh::start(folder.path(), 1, Naming::Prefix)?;
    let address = mesh.east.daemons.first().context("a daemon")?.mesh.to_string();
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let stranger = endpoint(&mesh.west, &mesh.east)?;
        let expect = Expect {
            cluster: "east".into(),
            node: Some(1),
        };
        let connection = stranger.connect(&address, &expect).await?;
        use Conversation::{Audit, Call, Control, Kafka, Mirror, Query, Raft, Region, Replicate};
        for conversation in [Raft, Control, Replicate, Call, Kafka] {
            match hello(&connection, Hello::new(conversation, "west", 1)).await? {
                Welcome::Refused { reason } => {
                    let expected = format!("another cluster's daemon may not open {conversation:?}");
                    ensure!(reason == expected, "{reason}");
                }
                Welcome::Accepted { .. } => bail!("{conversation:?} is open to another cluster"),
            }
            // Nor under a name that is not in its certificate.
            match hello(&connection, Hello::new(conversation, "east", 1)).await? {
                Welcome::Refused { reason } => {
                    ensure!(reason.contains("certificate is for west/1"), "{reason}");
                }
                Welcome::Accepted { .. } => bail!("{conversation:?} is open to a liar"),
            }
        }
        for conversation in [Mirror, Query, Audit, Region] {
            let answer = hello(&connection, Hello::new(conversation, "west", 1)).await?;
            ensure!(
                matches!(answer, Welcome::Accepted { .. }),
                "{conversation:?}: {answer:?}"
            );
        }
        Ok(())
    })?;
    let kafka = &mut mesh.east.kafka();
    kafka.create_topic("orders", 1, &[])?;
    ensure!(kafka.end("orders", 0)? == 0, "the east goes on");
    Ok(())
}

#[test]
fn a_source_whose_certificate_is_not_of_the_pinned_authority_is_unreachable_and_status_says_why() -> Result<()>
{
    let folder = tempfile::tempdir()?;
    let mut mesh = Mesh::start(folder.path(), 1, Naming::Prefix)?;
    mesh.east.kafka().create_topic("orders", 1, &[])?;
    mesh.wait_mirrored(1, 60)?;
    // The west pins its own authority for the east.
    let config = mesh.west.daemon(1)?.folder.join("tradewind.toml");
    let right = std::fs::read_to_string(&config)?;
    let (east, west) = (mesh.east.authority(), mesh.west.authority());
    let (east, west) = (east.to_string_lossy(), west.to_string_lossy());
    let wrong = right.replace(&*east, &west);
    ensure!(wrong != right);
    std::fs::write(&config, wrong)?;
    mesh.west.kill_all();
    mesh.west.start_all()?;
    wait::until("status names the certificate", 60, || {
        let status = mesh.status()?;
        ensure!(status["state"] == "source-unreachable", "{status}");
        ensure!(
            status["lag_records"].is_null() || status["lag_records"] == 0,
            "{status}"
        );
        let problems = status["problems"].to_string();
        ensure!(
            problems.contains("source unreachable") && problems.contains("certificate"),
            "{status}"
        );
        Ok(Some(()))
    })?;
    std::fs::write(&config, right)?;
    mesh.west.kill_all();
    mesh.west.start_all()?;
    mesh.wait_mirrored(1, 60)
}

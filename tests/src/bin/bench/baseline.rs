//! What the machine can do without us: writing a file, and TCP and QUIC over loopback.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use bytes::Bytes;
use tradewind_tests::relay::{Line, Relay};
use tradewind_transport::{Expect, Mesh, MeshOptions, MeshTls, certs};

const CHUNK: usize = 256 * 1024;

/// Writes `bytes` to one file and flushes it at the end; MB/s.
pub(crate) fn file_write(folder: &Path, bytes: u64) -> Result<f64> {
    write(folder, bytes, false)
}

/// The same, flushing after every chunk.
pub(crate) fn file_write_flushed(folder: &Path, bytes: u64) -> Result<f64> {
    write(folder, bytes, true)
}

fn write(folder: &Path, bytes: u64, flush_each: bool) -> Result<f64> {
    let path = folder.join("raw");
    let mut file = File::create(&path)?;
    let chunk = vec![0x5a; CHUNK];
    let began = Instant::now();
    for _ in 0..bytes / CHUNK as u64 {
        file.write_all(&chunk)?;
        if flush_each {
            file.sync_data()?;
        }
    }
    file.sync_data()?;
    let rate = bytes as f64 / 1e6 / began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

/// Sends `bytes` over one TCP connection within this process, each byte copied into the kernel and out of it; MB/s.
pub(crate) fn loopback_tcp(bytes: u64) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    tcp(&listener, addr, bytes)
}

/// The same through a relay whose line is like this.
pub(crate) fn relayed_tcp(bytes: u64, line: Line) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let relay = Relay::tcp(listener.local_addr()?, line, 1)?;
    tcp(&listener, relay.addr(), bytes)
}

/// From the first byte that arrives to the last.
fn tcp(listener: &TcpListener, addr: SocketAddr, bytes: u64) -> Result<f64> {
    let mut sender = TcpStream::connect(addr)?;
    let (mut receiver, _) = listener.accept()?;
    let sending = thread::spawn(move || -> Result<()> {
        let chunk = vec![0x5a; CHUNK];
        for _ in 0..bytes.div_ceil(CHUNK as u64) {
            sender.write_all(&chunk)?;
        }
        Ok(())
    });
    let mut chunk = vec![0; CHUNK];
    let mut got = receiver.read(&mut chunk)?;
    let began = Instant::now();
    while got > 0 {
        got = receiver.read(&mut chunk)?;
    }
    let seconds = began.elapsed().as_secs_f64();
    sending
        .join()
        .map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(bytes as f64 / 1e6 / seconds)
}

/// Sends `bytes` over one stream between two of our endpoints in this process; MB/s.
pub(crate) fn loopback_quic(folder: &Path, bytes: u64) -> Result<f64> {
    let (authority, out) = (folder.join("ca"), folder.join("quic"));
    certs::init_ca(&authority)?;
    certs::issue(&authority, "bench", 1, &["127.0.0.1".to_owned()], &out)?;
    let tls = MeshTls::load(
        &out.join("ca.pem"),
        &out.join("node.pem"),
        &out.join("node.key"),
        &[],
    )?;
    let tls = Arc::new(tls);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(async {
            let any = "127.0.0.1:0".parse()?;
            let server = Mesh::bind(any, Arc::clone(&tls), MeshOptions::new([1; 64]))?;
            let client = Mesh::bind(any, tls, MeshOptions::new([2; 64]))?;
            let addr = server.local_addr()?.to_string();
            let receiving = tokio::spawn(async move {
                let connection = server.accept().await.context("no connection")?;
                let (_tx, mut rx) = connection.accept().await?.context("no stream")?;
                let mut received = 0;
                while received < bytes {
                    received += rx.recv().await?.context("ended early")?.len() as u64;
                }
                anyhow::Ok(())
            });
            let expect = Expect {
                cluster: "bench".to_owned(),
                node: Some(1),
            };
            let connection = client.connect(&addr, &expect).await?;
            let (mut tx, _rx) = connection.open().await?;
            let chunk = Bytes::from(vec![0x5a; CHUNK]);
            let began = Instant::now();
            for _ in 0..bytes.div_ceil(CHUNK as u64) {
                tx.send(std::slice::from_ref(&chunk)).await?;
            }
            receiving.await??;
            Ok(bytes as f64 / 1e6 / began.elapsed().as_secs_f64())
        })
}

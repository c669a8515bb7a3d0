//! `cert init` and `cert issue`.

use tradewind_transport::certs;

use super::Failure;
use super::args::CertCommand;

/// Writes the files and says which.
pub(super) fn run(command: CertCommand) -> Result<u8, Failure> {
    match command {
        CertCommand::Init { out } => {
            certs::init_ca(&out)?;
            eprintln!(
                "wrote {0}/ca.pem and {0}/ca.key (for development: whoever has ca.key can join)",
                out.display()
            );
        }
        CertCommand::Issue {
            ca,
            cluster,
            node,
            hosts,
            out,
        } => {
            certs::issue(&ca, &cluster, node, &hosts, &out)?;
            eprintln!(
                "wrote {0}/ca.pem, {0}/node.pem and {0}/node.key for daemon {node} of {cluster}",
                out.display()
            );
        }
    }
    Ok(0)
}

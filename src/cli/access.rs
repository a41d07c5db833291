//! How a subcommand reaches a node that does not let everyone in.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::client::Access;

/// Arguments of who is a node's client.
#[derive(Debug, clap::Args)]
pub(super) struct AccessArgs {
    /// A file with the token that the node asks for.
    #[arg(long, env = "SAM4MLLM_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Roots, PEM, that the node's certificate leads to; for https addresses.
    #[arg(long, env = "SAM4MLLM_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Your own certificate chain, PEM, for nodes that want one.
    #[arg(long, env = "SAM4MLLM_CERTIFICATE", value_name = "FILE", requires_all = ["ca", "key"])]
    certificate: Option<PathBuf>,
    /// Its private key, PEM.
    #[arg(long, env = "SAM4MLLM_KEY", value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
}

impl AccessArgs {
    /// Whether the connection is TLS.
    #[cfg(feature = "ros2")]
    pub(super) fn is_tls(&self) -> bool {
        self.ca.is_some()
    }

    /// With what is in the token's file.
    pub(super) fn read(&self) -> anyhow::Result<Access> {
        Ok(Access {
            roots: self.ca.clone(),
            identity: self.certificate.clone().zip(self.key.clone()),
            token: self.token_file.as_deref().map(read_token).transpose()?,
        })
    }
}

/// The token in a file, without the end of its line.
fn read_token(file: &Path) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    Ok(text.trim().to_owned())
}

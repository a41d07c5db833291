//! The `sam4mllm` binary: parses arguments and hands over to [`sam4mllm::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    sam4mllm::cli::run()
}

//! How many reviews a second the webhook answers over TLS on one core, how long one takes, and
//! how much memory ten thousand fenced claims need.
//!
//! ```text
//! this process, on the other cores ── TLS, HTTP/1.1, kept alive ──▶ the webhook, on core 0
//! ```
//!
//! The webhook is its real router, rules, memory and TLS, in a process that holds nothing else.
//! An API server talks HTTP/1.1 to webhooks.

mod asking;
mod serving;
mod table;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use asking::Asked;
use clap::Parser;

/// Measures the webhook on one core. Needs taskset, of util-linux.
#[derive(Parser)]
struct Arguments {
    /// How many claims are fenced
    #[arg(long, default_value_t = 10_000)]
    claims: usize,
    /// How long each measurement takes, in seconds
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// A second each: it tries the benchmark, and its figures mean nothing
    #[arg(long, conflicts_with_all = ["seconds", "write"])]
    quick: bool,
    /// Put the table between the markers of this file, too; from the repository's root
    #[arg(long, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Be the webhook: what the benchmark starts
    #[arg(long, hide = true)]
    serve: bool,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// Reviews a second that a webhook asked now and then gets.
const RATE: u32 = 1000;

/// What one run has shown.
pub struct Figures {
    claims: usize,
    bodies: usize,
    refused: usize,
    mean_bytes: usize,
    seconds: u64,
    full_speed: Asked,
    /// The webhook's, in the same time.
    processor: Duration,
    steady: Asked,
    resident_kib: u64,
    peak_kib: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.serve {
        serving::serve(arguments.claims)
    } else {
        run(&arguments)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let file = arguments.write.as_ref().map(|file| root.join(file));
    if let Some(file) = &file {
        table::write_between_markers(file, None)?;
    }
    let load = std::fs::read_to_string("/proc/loadavg")?;
    leave_core_0()?;
    let seconds = if arguments.quick {
        1
    } else {
        arguments.seconds
    };
    let server = serving::Server::start(arguments.claims)?;
    let resident_kib = server.memory("VmRSS")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let client = asking::Client::new(&server.announced)?;
    let (bodies, refused) = runtime.block_on(client.try_each())?;
    let length = Duration::from_secs(seconds);
    // The first second is not measured: nothing is in any cache yet.
    runtime.block_on(client.full_speed(Duration::from_secs(1)))?;
    let before = server.processor()?;
    let full_speed = runtime.block_on(client.full_speed(length))?;
    let processor = server.processor()?.saturating_sub(before);
    let steady = runtime.block_on(client.at_rate(RATE, length))?;
    let figures = Figures {
        claims: arguments.claims,
        bodies,
        refused,
        mean_bytes: client.mean_bytes(),
        seconds,
        full_speed,
        processor,
        steady,
        resident_kib,
        peak_kib: server.memory("VmHWM")?,
    };
    server.end()?;
    let text = table::text(&figures, load.split(' ').next().unwrap_or_default());
    print!("{text}");
    if let Some(file) = &file {
        table::write_between_markers(file, Some(&text))?;
    }
    Ok(())
}

/// The core of the webhook is its own, where there is another one.
fn leave_core_0() -> Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    if cores == 1 {
        eprintln!("there is one core: the webhook shares it with who asks it");
        return Ok(());
    }
    let others = format!("1-{}", cores - 1);
    let output = Command::new("taskset")
        .args(["-pc", &others, &std::process::id().to_string()])
        .output()
        .context("taskset cannot be run: apt-get install util-linux")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

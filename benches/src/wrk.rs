//! Load from `wrk`: requests that lie ready in a file, over connections that are kept open.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Read by `wrk`; beside it lies the file of requests.
const SCRIPT: &str = include_str!("wrk.lua");

/// The load generator, and how much load it makes.
pub struct Wrk {
    program: PathBuf,
    script: PathBuf,
    connections: usize,
}

/// What one run has measured, with requests that waited for a connection counted as late.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Answers in a second.
    pub per_second: f64,
    /// Half of the answers took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 answers took no longer, in milliseconds.
    pub p99_ms: f64,
}

impl Wrk {
    /// The `program`, which must be there; its script is written into `directory`.
    ///
    /// # Errors
    /// Why it cannot be started, with what to do.
    pub fn new(program: &Path, directory: &Path, connections: usize) -> Result<Self, String> {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        if let Err(error) = command.status() {
            return Err(format!(
                "the load generator {} cannot be started: {error}. Install wrk (Debian's package is \
                 named so too), or say with --wrk where it is",
                program.display()
            ));
        }
        let script = directory.join("wrk.lua");
        std::fs::write(&script, SCRIPT).map_err(|error| error.to_string())?;
        Ok(Wrk { program: program.into(), script, connections })
    }

    /// Sends the requests of the file, one after the other and round and round, for so many seconds.
    ///
    /// # Panics
    /// If a request was not answered, or by a status of 400 or above.
    #[must_use]
    pub fn run(&self, address: SocketAddr, requests: &Path, seconds: u64) -> Load {
        assert!(address.ip().is_loopback(), "only this machine is put under load");
        let mut command = Command::new(&self.program);
        // One thread is far from what limits it, and leaves the rest of the machine to the server.
        command.args(["--threads", "1", "--connections", &self.connections.to_string()]);
        command.args(["--duration", &format!("{seconds}s"), "--timeout", "10s", "--script"]);
        command.arg(&self.script).arg(format!("http://{address}")).arg("--").arg(requests);
        let output = command.output().expect("it could be started before");
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text.lines().find_map(|line| line.strip_prefix("measured "));
        let line = line.unwrap_or_else(|| panic!("wrk has measured nothing: {output:?}"));
        let numbers = line.split(' ').map(|number| number.parse().expect("they are numbers"));
        let numbers = numbers.collect::<Vec<f64>>();
        let [answers, micros, errors, p50_us, p99_us] = numbers[..] else {
            panic!("the script writes other numbers: {line}")
        };
        assert!(errors == 0.0 && answers > 0.0, "not all went well: {text}");
        Load { per_second: answers / micros * 1e6, p50_ms: p50_us / 1e3, p99_ms: p99_us / 1e3 }
    }
}

/// Writes a file of requests, each a whole one with its head.
///
/// # Errors
/// Those of the file.
pub fn write<'a>(file: &Path, requests: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(file)?);
    for request in requests {
        writeln!(file, "{}", request.len())?;
        file.write_all(request)?;
    }
    file.flush()
}

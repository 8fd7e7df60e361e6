//! A stand-in for Firecracker, with which the guide's commands and the example suites of the Python package run.
//!
//! It takes Firecracker's arguments, answers a part of its API, writes a log and metrics, and runs until a signal or the
//! action `SendCtrlAltDel` ends it. It has no guest: it only opens the kernel and the drives.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

/// The exit code for a bad configuration, as Firecracker's.
const BAD_CONFIGURATION: u8 = 152;

/// How long a client may take to send its request.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--version") {
        println!("a stand-in for Firecracker");
        return ExitCode::SUCCESS;
    }
    let value =
        |flag: &str| arguments.iter().skip_while(|argument| *argument != flag).nth(1).map(String::as_str);
    let socket = value("--api-sock").unwrap_or("/run/firecracker.socket");
    if let Some(missing) = value("--config-file").filter(|file| !std::path::Path::new(file).exists()) {
        eprintln!("no configuration at {missing}");
        return ExitCode::from(BAD_CONFIGURATION);
    }
    let mut vmm = Vmm { id: value("--id").unwrap_or("anonymous").to_owned(), ..Vmm::default() };
    let configured = vmm.configure(value("--log-path"), value("--metrics-path"), value("--config-file"));
    if let Err(error) = configured {
        eprintln!("{error}");
        return ExitCode::from(BAD_CONFIGURATION);
    }
    if arguments.iter().any(|argument| argument == "--no-api") {
        loop {
            std::thread::park();
        }
    }
    match UnixListener::bind(socket) {
        Ok(listener) => {
            println!("the API is at {socket}");
            vmm.log(&format!("listening on {socket}"));
            while !vmm.is_stopped {
                // A client that sends nonsense gets no answer.
                let _ = listener.accept().and_then(|(client, _)| vmm.answer(client));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{socket}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The state of the virtual machine that does not exist.
#[derive(Default)]
struct Vmm {
    id: String,
    log: Option<File>,
    metrics: Option<File>,
    requests: u64,
    drives: Vec<File>,
    is_started: bool,
    is_stopped: bool,
}

impl Vmm {
    fn configure(
        &mut self,
        log: Option<&str>,
        metrics: Option<&str>,
        file: Option<&str>,
    ) -> Result<(), String> {
        if let Some(log) = log {
            self.put("/logger", &json!({ "log_path": log }))?;
        }
        self.log(&format!("Running {} as {}", env!("CARGO_BIN_NAME"), self.id));
        if let Some(metrics) = metrics {
            self.put("/metrics", &json!({ "metrics_path": metrics }))?;
        }
        let Some(file) = file else { return Ok(()) };
        let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        let configuration: Value = serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
        for part in ["logger", "metrics", "boot-source"] {
            if let Some(body) = configuration.get(part) {
                self.put(&format!("/{part}"), body)?;
            }
        }
        for drive in configuration.get("drives").and_then(Value::as_array).into_iter().flatten() {
            self.put(&format!("/drives/{}", text_of(drive, "drive_id")), drive)?;
        }
        self.put("/actions", &json!({ "action_type": "InstanceStart" }))
    }

    /// Answers one request.
    fn answer(&mut self, client: UnixStream) -> std::io::Result<()> {
        client.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(client);
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut words = first.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let mut length = 0;
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or_default();
            }
        }
        let mut body = vec![0; std::cmp::min(length, 1 << 20)];
        reader.read_exact(&mut body)?;
        self.requests += 1;
        self.log(&format!("The API server received a {method} request on \"{path}\""));
        let outcome = match method {
            "GET" => Ok(()),
            "PUT" => {
                let body = serde_json::from_slice(&body).map_err(|error| error.to_string());
                body.and_then(|body| self.put(path, &body))
            }
            _ => Err(format!("no method {method}")),
        };
        let (status, body) = match (method, outcome) {
            ("GET", Ok(())) => {
                let state = if self.is_started { "Running" } else { "Not started" };
                ("200 OK", json!({ "id": self.id, "state": state }).to_string())
            }
            (_, Ok(())) => ("204 No Content", String::new()),
            (_, Err(message)) => {
                self.log(&format!("fault: {message}"));
                ("400 Bad Request", json!({ "fault_message": message }).to_string())
            }
        };
        self.write_metrics();
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
        reader.into_inner().write_all(answer.as_bytes())
    }

    fn put(&mut self, path: &str, body: &Value) -> Result<(), String> {
        match path.split('/').nth(1).unwrap_or_default() {
            "logger" => self.log = Some(open_output(text_of(body, "log_path"))?),
            "metrics" => {
                self.metrics = Some(open_output(text_of(body, "metrics_path"))?);
                self.write_metrics();
            }
            "boot-source" => drop(open(text_of(body, "kernel_image_path"), false)?),
            "drives" => {
                let is_writable = body.get("is_read_only") != Some(&Value::Bool(true));
                self.drives.push(open(text_of(body, "path_on_host"), is_writable)?);
            }
            "actions" => match text_of(body, "action_type") {
                "InstanceStart" => {
                    self.is_started = true;
                    self.log("The microVM started");
                }
                "SendCtrlAltDel" => {
                    self.is_stopped = true;
                    self.log("The microVM stopped");
                }
                "FlushMetrics" => (),
                other => return Err(format!("no action {other}")),
            },
            "machine-config" => (),
            _ => return Err(format!("no resource {path}")),
        }
        Ok(())
    }

    /// Writes one line, which is flushed at once. Errors are ignored: the reader may have closed it.
    fn log(&mut self, message: &str) {
        if let Some(log) = &mut self.log {
            let _ = log.write_all(format!("[{}:main:INFO] {message}\n", self.id).as_bytes());
        }
    }

    fn write_metrics(&mut self) {
        let line = json!({ "requests": self.requests, "drives": self.drives.len() });
        if let Some(metrics) = &mut self.metrics {
            let _ = metrics.write_all(format!("{line}\n").as_bytes());
        }
    }
}

fn text_of<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn open(path: &str, is_writable: bool) -> Result<File, String> {
    let opened = OpenOptions::new().read(true).write(is_writable).open(path);
    opened.map_err(|error| format!("{path}: {error}"))
}

/// Opens an existing file or named pipe. With reading too, the open does not wait for a reader of the pipe.
fn open_output(path: &str) -> Result<File, String> {
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = OpenOptions::new().read(true).append(true).custom_flags(nonblocking).open(path);
    opened.map_err(|error| format!("{path}: {error}"))
}

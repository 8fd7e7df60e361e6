//! A stand-in for Firecracker, with which the guide's commands run.
//!
//! It takes Firecracker's arguments, listens on its socket, reports that, and runs until a signal ends it. It has no
//! guest.

use std::os::unix::net::UnixListener;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == "--version") {
        println!("a stand-in for Firecracker");
        return ExitCode::SUCCESS;
    }
    let value = |flag: &str| arguments.iter().skip_while(|argument| *argument != flag).nth(1);
    let socket = value("--api-sock").map_or("/run/firecracker.socket", String::as_str);
    if let Some(missing) = value("--config-file").filter(|file| !std::path::Path::new(file).exists()) {
        eprintln!("no configuration at {missing}");
        return ExitCode::from(152);
    }
    match UnixListener::bind(socket) {
        Ok(_listener) => {
            println!("the API is at {socket}");
            loop {
                std::thread::park();
            }
        }
        Err(error) => {
            eprintln!("{socket}: {error}");
            ExitCode::FAILURE
        }
    }
}

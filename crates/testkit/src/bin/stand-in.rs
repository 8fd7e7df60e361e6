//! What stands in for Firecracker where the guide's commands are run: it takes Firecracker's arguments, listens at
//! its socket, says so, and runs until a signal ends it. There is no guest in it.

use std::os::unix::net::UnixListener;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if words.iter().any(|word| word == "--version") {
        println!("a stand-in for Firecracker");
        return ExitCode::SUCCESS;
    }
    let value = |flag: &str| words.iter().skip_while(|word| *word != flag).nth(1);
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

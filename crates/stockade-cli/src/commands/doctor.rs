//! `stockade doctor`: checks whether this host can hold jails.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use stockade::doctor::{Finding, Grade, HostFacts, Question, diagnose};
use stockade::spec::{Account, DEFAULT_BASE, DEFAULT_OWNER, HostPath, JailId};

use crate::flags::state::StateArgs;
use crate::terminal::findings::FindingsStyle;
use crate::terminal::output::{Failure, in_flag, print_json, print_styled, success_if};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit code is 1 if a finding breaks jails. A finding that only weakens them is a warning. A finding is unknown, with the reason, if doctor could not read or try something; that does not change the exit code.

Example:
  sudo stockade doctor --chroot-base-dir /srv/jailer --id vm-1"
)]
pub(crate) struct DoctorArgs {
    /// Directory that holds the jails.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_BASE)]
    chroot_base_dir: PathBuf,
    /// Jail ID for the check of the socket path's length.
    #[arg(long, default_value = "vm-1")]
    id: JailId,
    /// VMM executable's name for the check of the socket path's length.
    #[arg(long, value_name = "NAME", default_value = "firecracker")]
    exec_name: String,
    /// User ID of VMMs, or a name in /etc/passwd.
    #[arg(long, value_name = "USER", default_value_t = DEFAULT_OWNER.uid.to_string())]
    uid: String,
    /// Omit the findings that are good.
    #[arg(short, long)]
    quiet: bool,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: StateArgs,
}

#[derive(Serialize)]
struct Report {
    /// Whether no finding breaks jails.
    ok: bool,
    findings: Vec<Finding>,
}

pub(crate) fn doctor(args: &DoctorArgs) -> Result<ExitCode, Failure> {
    let question = Question {
        base: HostPath::future_directory(&args.chroot_base_dir).map_err(in_flag("chroot-base-dir"))?,
        exec_name: args.exec_name.clone(),
        id: args.id.to_string(),
        uid: Account::User.parse(&args.uid).map_err(in_flag("uid"))?,
        store: args.state.store()?,
    };
    let mut findings = diagnose(&HostFacts::read(&question));
    let ok = findings.iter().all(|finding| finding.grade < Grade::Broken);
    if args.quiet {
        findings.retain(|finding| finding.grade > Grade::Good);
    }
    let report = Report { ok, findings };
    if args.json {
        print_json(&report)?;
    } else {
        print_styled(&FindingsStyle::for_stdout().findings(&report.findings))?;
    }
    Ok(success_if(ok))
}

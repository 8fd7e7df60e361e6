//! `stockade profiles`: prints the profiles of VMMs.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use stockade::spec::{DEFAULT_PROFILE_DIRECTORY, Profile, Profiles};

use crate::terminal::output::{Failure, print, print_json};

/// Arguments of `profiles`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  stockade profiles qemu > my-qemu.toml")]
pub(crate) struct ProfilesArgs {
    /// Profile to print as TOML, for instance as the start of another one.
    #[arg(value_name = "NAME|FILE")]
    name: Option<String>,
    /// Directory of more profiles.
    #[arg(long, value_name = "DIR", env = "STOCKADE_PROFILE_DIR", hide_env_values = true, default_value = DEFAULT_PROFILE_DIRECTORY)]
    profile_dir: PathBuf,
    /// Print a JSON list.
    #[arg(long)]
    json: bool,
}

pub(crate) fn profiles(args: &ProfilesArgs) -> Result<ExitCode, Failure> {
    let profiles = Profiles::new(&args.profile_dir);
    let chosen = match &args.name {
        Some(name) => vec![profiles.named(name)?],
        None => profiles.all()?,
    };
    if args.json {
        print_json(&chosen)?;
    } else if args.name.is_some() {
        print(&chosen.iter().map(Profile::to_toml).collect::<String>())?;
    } else {
        print(&table(&chosen))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(profiles: &[Profile]) -> String {
    let width = profiles.iter().map(|profile| profile.name.len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}  FOR\n", "NAME");
    for profile in profiles {
        let executables = profile.executables.join(" ");
        let _ = writeln!(
            text,
            "{:width$}  {}",
            profile.name,
            if executables.is_empty() { "-" } else { &executables }
        );
    }
    text
}

//! Doing what can be done at once about what a host lacks. Errors are said in words, for the remedy.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::unistd::{Gid, Uid, User, chown};

use super::host::HUGEPAGES;
use super::{Action, USER};
use crate::pci;

/// Does it.
pub(super) fn apply(action: &Action) -> Result<(), String> {
    match action {
        Action::Hugepages(pages) => set_hugepages(*pages),
        Action::LoadModule(name) => run("modprobe", &[name]),
        Action::Bind(address) => pci::give_to_vfio(&pci::Host::default(), address),
        Action::Own { path, user, group, mode, make } => {
            if *make {
                fs::create_dir_all(path).map_err(failed("making it"))?;
            }
            chown(path, Some(Uid::from_raw(*user)), Some(Gid::from_raw(*group)))
                .map_err(|errno| failed("changing its owner")(errno.into()))?;
            // Last, as a change of the owner takes bits away.
            fs::set_permissions(path, Permissions::from_mode(*mode))
                .map_err(failed("changing its permissions"))
        }
        // More than one need may be waiting for the same user.
        Action::AddUser if matches!(User::from_name(USER), Ok(Some(_))) => Ok(()),
        Action::AddUser => {
            let home = ["--home-dir", "/nonexistent", "--no-create-home"];
            let rest = ["--system", "--user-group", "--shell", "/usr/sbin/nologin", USER];
            run("useradd", &[&home[..], &rest[..]].concat())
        }
        Action::JoinGroup(group) => run("usermod", &["--append", "--groups", group, USER]),
    }
}

/// The kernel stops without an error at what it can give, so what it gave is looked at.
fn set_hugepages(pages: u64) -> Result<(), String> {
    let file = format!("{HUGEPAGES}/nr_hugepages");
    let read = || fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let write = |path: &str, text: &str| fs::write(path, text).map_err(failed("asking the kernel"));
    let before = read().unwrap_or(0);
    write(&file, &pages.to_string())?;
    if read() < Some(pages) {
        // Free memory is in pieces: have the kernel join them, and ask again.
        let _ = fs::write("/proc/sys/vm/compact_memory", "1");
        write(&file, &pages.to_string())?;
    }
    match read() {
        Some(given) if given < pages => {
            write(&file, &before.to_string())?;
            Err(format!(
                "the kernel gave only {given} pages of {pages}, as its memory is in pieces"
            ))
        }
        _ => Ok(()),
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program} could not be run: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} failed: {}", said.trim().replace('\n', ", ")))
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{doing} failed: {error}")
}

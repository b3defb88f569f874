//! What `viaduct setup` takes.

use std::path::PathBuf;

use clap::Args;
use control::config::Config;

/// `viaduct setup`.
#[derive(Debug, Args)]
#[command(
    after_help = "Done at once, as root: huge pages, modules of the kernel, PCI devices given to vfio-pci, the user and
its groups, directories. Told: parameters of the kernel, which take a boot, and what a program had
better not decide. What is right is left alone.

STATE is ok, done (it was lacking), lacking (setup can do it), boot (by parameters of the kernel) or
hand. The exit status is 1 while anything is lacking.

Examples:
  viaduct setup --dry-run
  viaduct setup
  viaduct setup --handover
  viaduct setup --dry-run --json | jq -r '.[].kernel_parameters[]?'"
)]
pub struct SetupArguments {
    /// Tell what is lacking, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Have huge pages for a handover too: the new process's, beside those of the one that runs
    #[arg(long)]
    pub handover: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The configuration of this machine
    #[arg(long, value_name = "FILE", default_value = Config::PATH)]
    pub config: PathBuf,
}

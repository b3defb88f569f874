//! Real files, real events: what is listed, what is seen of changes, and what is written.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::documented::assert_documented;
use crate::model::{ActualState, PortState, PortUuid, RawValue, Status};
use crate::problem::Problem;
use crate::store::{Listing, Reporter, Store, StoreError, Watch};

const NET: &str = "networks/11111111-1111-4111-8111-111111111111";
const PORT: &str = "nodes/h/ports/aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa";

/// How long a test waits for what must happen, on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);

/// Too long to be waited for: what is seen was told by an event.
const NEVER: Duration = Duration::from_secs(3600);

/// A store in a directory of its own.
struct Bed {
    _outside: TempDir,
    root: PathBuf,
}

impl Bed {
    fn new() -> Bed {
        let outside = TempDir::new().expect("a directory for the test");
        let root = outside.path().join("store");
        fs::create_dir(&root).expect("it can be written");
        Bed { _outside: outside, root }
    }

    fn store(&self) -> Directory {
        Directory::new(&self.root).rescan_every(NEVER)
    }

    /// Writes a file in place, as a careless editor does.
    fn write(&self, file: &str, text: &str) {
        let path = self.root.join(file);
        fs::create_dir_all(path.parent().expect("inside")).expect("folders can be made");
        fs::write(path, text).expect("files can be written");
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.root.join(file)).expect("it is there");
    }

    fn file(&self, key: &str) -> PathBuf {
        key.parse::<Key>().expect(key).file(&self.root)
    }

    async fn watch(&self, store: &Directory) -> Watch {
        let host = "h".parse().expect("a name");
        let mut watch = store.follow(&host).await.expect("the directory is there");
        watch.next().await.expect("what there is comes at once");
        watch
    }

    fn said(&self, problems: &[Problem]) -> Vec<String> {
        let root = self.root.display().to_string();
        let said = problems.iter().inspect(|problem| assert_documented(problem));
        said.map(|problem| problem.to_string().replace(&root, "DIR")).collect()
    }
}

fn key(text: &str) -> Key {
    text.parse().expect(text)
}

/// The values as text, by key.
fn texts(listing: &Listing) -> BTreeMap<String, String> {
    let text = |raw: &RawValue| match raw {
        RawValue::Json(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        RawValue::Unreadable(misfit) => format!("unreadable: {misfit}"),
    };
    listing.values.iter().map(|(key, raw)| (key.to_string(), text(raw))).collect()
}

fn of(values: &[(&str, &str)]) -> BTreeMap<String, String> {
    values.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect()
}

/// Waits until what is listed is as it should be; fails with what it is instead.
async fn until(watch: &mut Watch, mut good: impl FnMut(&Listing) -> bool) -> Arc<Listing> {
    let mut last = None;
    let seen = timeout(PATIENCE, async {
        loop {
            let listing = watch.next().await.expect("the watch goes on");
            if good(&listing) {
                return listing;
            }
            last = Some(listing);
        }
    });
    let seen = seen.await;
    seen.unwrap_or_else(|_| panic!("in vain; the last seen was {last:?}"))
}

#[test]
fn a_listing_is_what_lies_under_keys_and_all_that_is_odd() {
    let bed = Bed::new();
    bed.write(&format!("{NET}.json"), "1");
    bed.write(&format!("{PORT}.json"), "2");
    let member = format!("group-members/{0}/{0}", &NET["networks/".len()..]);
    bed.write(&format!("{member}.json"), "3");
    // Nobody's business.
    for file in
        ["README.md", ".hidden.json", "networks/a.json~", "networks/.#a.json", "state/h/x.json"]
    {
        bed.write(file, "");
    }
    bed.write("lost+found/x", "");
    // Odd.
    bed.write("networks/blue.json", "{}");
    bed.write("network.json", "{}");
    bed.write("nodes/h/ports/deep/x.json", "{}");
    bed.write("nodes/h/port/x.json", "{}");
    bed.write("nodes/a b/ports/x.json", "{}");
    bed.write("security-groups/x.json", "{}");
    bed.write("group-members/web/x.json", "{}");
    fs::create_dir(bed.root.join("networks/dir.json")).expect("a folder like a file");
    // Values that cannot be read, each in another way.
    let odd = |digit: &str| format!("networks/00000000-0000-4000-8000-00000000000{digit}");
    symlink("nowhere", bed.file(&odd("1"))).expect("a link");
    symlink(bed.file(&odd("2")), bed.file(&odd("2"))).expect("a link to itself");
    nix::unistd::mkfifo(&bed.file(&odd("3")), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    bed.write(&format!("{}.json", odd("4")), &" ".repeat(VALUE_OCTETS_MAX + 1));
    bed.write(&format!("{}.json", odd("5")), &" ".repeat(VALUE_OCTETS_MAX));

    let mut listing = bed.store().read().expect("the directory is there");
    let largest = listing.values.remove(&key(&odd("5")));
    assert!(matches!(largest, Some(RawValue::Json(bytes)) if bytes.len() == VALUE_OCTETS_MAX));
    assert_eq!(
        texts(&listing),
        of(&[
            (&odd("1"), "unreadable: is a link that leads nowhere; correct or delete it"),
            (
                &odd("2"),
                "unreadable: cannot be read: Too many levels of symbolic links (os error 40); make \
                 it readable for the user that runs viaduct"
            ),
            (&odd("3"), "unreadable: is not a regular file; replace it by one, or delete it"),
            (
                &odd("4"),
                "unreadable: is larger than 4194304 octets; no object is that large; replace or \
                 delete it"
            ),
            (NET, "1"),
            (PORT, "2"),
            (&member, "3"),
        ])
    );
    let nothing_here = "no key of this version stands here; move it out of the store; the folders \
                        are `networks`, `security-groups`, `address-groups`, \
                        `group-members/<group>` and `nodes/<host>/ports`";
    assert_eq!(
        bed.said(&listing.problems),
        [
            "DIR/group-members/web: `web` is not a UUID; write a UUID such as \
             6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"
                .to_owned(),
            "DIR/network.json: `network` is not known in this version; write networks/<uuid>, \
             nodes/<host>/ports/<uuid>, security-groups/<uuid>, address-groups/<uuid> or \
             group-members/<group>/<port>"
                .to_owned(),
            "DIR/networks/blue.json: `blue` is not a UUID; write a UUID such as \
             6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"
                .to_owned(),
            format!("DIR/networks/dir.json: {nothing_here}"),
            "DIR/nodes/a b: `a b` is not a host name; write 1 to 200 letters, digits, `.`, `_` or \
             `-`, the first a letter or digit"
                .to_owned(),
            format!("DIR/nodes/h/port: {nothing_here}"),
            format!("DIR/nodes/h/ports/deep: {nothing_here}"),
            "DIR/security-groups/x.json: `x` is not a UUID; write a UUID such as \
             6f1c0f5e-8a3b-4c58-9d52-0c7f0b1f2e3d"
                .to_owned(),
        ]
    );
}

#[test]
fn a_directory_that_is_not_there_is_no_empty_one() {
    let error = Directory::new("/nowhere/store").read().expect_err("it is not there");
    assert_eq!(
        error.to_string(),
        "/nowhere/store: the store's directory is not there; make it: mkdir -p /nowhere/store"
    );
}

#[tokio::test]
async fn changes_are_seen_by_event() {
    let bed = Bed::new();
    let store = bed.store();
    let mut watch = bed.watch(&store).await;
    let file = format!("{NET}.json");

    // The folder appears together with the file.
    bed.write(&file, "1");
    until(&mut watch, |now| texts(now) == of(&[(NET, "1")])).await;
    // Written in place.
    bed.write(&file, "22");
    until(&mut watch, |now| texts(now) == of(&[(NET, "22")])).await;
    // The same size, at nearly the same time.
    bed.write(&file, "33");
    until(&mut watch, |now| texts(now) == of(&[(NET, "33")])).await;
    // Written beside and renamed over, as a careful editor does.
    bed.write("networks/.new", "4");
    fs::rename(bed.root.join("networks/.new"), bed.root.join(&file)).expect("a rename");
    until(&mut watch, |now| texts(now) == of(&[(NET, "4")])).await;
    // Three folders deep, made at once.
    bed.write(&format!("{PORT}.json"), "5");
    until(&mut watch, |now| texts(now) == of(&[(NET, "4"), (PORT, "5")])).await;
    // A folder moved in, with all in it.
    fs::rename(bed.root.join("nodes"), bed.root.join(".nodes")).expect("a rename");
    until(&mut watch, |now| texts(now) == of(&[(NET, "4")])).await;
    fs::rename(bed.root.join(".nodes"), bed.root.join("nodes")).expect("a rename");
    until(&mut watch, |now| texts(now) == of(&[(NET, "4"), (PORT, "5")])).await;
    bed.write(&format!("{PORT}.json"), "6");
    until(&mut watch, |now| texts(now) == of(&[(NET, "4"), (PORT, "6")])).await;
    bed.remove(&file);
    until(&mut watch, |now| texts(now) == of(&[(PORT, "6")])).await;
    // What is odd is news as well.
    bed.write("networks/blue.json", "");
    let odd = until(&mut watch, |now| !now.problems.is_empty()).await;
    assert!(odd.problems[0].object.ends_with("networks/blue.json"), "{odd:?}");
    bed.remove("networks/blue.json");
    until(&mut watch, |now| now.problems.is_empty()).await;
}

#[tokio::test]
async fn nothing_between_list_and_watch_is_lost() {
    let bed = Bed::new();
    let store = bed.store();
    let listing = store.list().await.expect("the directory is there");
    bed.write(&format!("{NET}.json"), "1");
    let mut watch = store.watch(Arc::new(listing));
    until(&mut watch, |now| texts(now) == of(&[(NET, "1")])).await;
}

#[tokio::test]
async fn what_no_event_tells_is_found_by_looking() {
    let bed = Bed::new();
    let store = bed.store().rescan_every(Duration::from_millis(50));
    bed.write("elsewhere", "1");
    fs::create_dir(bed.root.join("networks")).expect("a folder");
    symlink(bed.root.join("elsewhere"), bed.file(NET)).expect("a link");
    let mut watch = bed.watch(&store).await;
    // The linked file lies in a folder that is watched; one outside of the store does not.
    let outside = bed.root.parent().expect("a parent").join("outside");
    fs::write(&outside, "2").expect("a file");
    bed.remove(&format!("{NET}.json"));
    symlink(&outside, bed.file(NET)).expect("a link");
    until(&mut watch, |now| texts(now) == of(&[(NET, "2")])).await;
    fs::write(&outside, "3").expect("a file");
    until(&mut watch, |now| texts(now) == of(&[(NET, "3")])).await;
}

#[tokio::test]
async fn a_directory_that_goes_is_an_outage_and_may_come_back() {
    let bed = Bed::new();
    let store = bed.store();
    let (beside, away) = (bed.root.with_file_name("beside"), bed.root.with_file_name("away"));
    bed.write(&format!("{NET}.json"), "0");
    let mut watch = bed.watch(&store).await;
    for round in 1..4 {
        fs::rename(&bed.root, &away).expect("a rename");
        fs::remove_dir_all(&away).expect("it can be removed");
        let gone = until(&mut watch, |now| !now.problems.is_empty()).await;
        assert_eq!(texts(&gone), of(&[(NET, &(round - 1).to_string())]));
        assert_eq!(
            bed.said(&gone.problems),
            [
                "DIR: the store's directory is not there; what was read last stays in force; make it: \
              mkdir -p DIR"
            ]
        );
        // Prepared beside and moved there: what is in it comes at once.
        let file = beside.join(format!("{NET}.json"));
        fs::create_dir_all(file.parent().expect("a folder")).expect("folders");
        fs::write(&file, round.to_string()).expect("a file");
        fs::rename(&beside, &bed.root).expect("a rename");
        let back = until(&mut watch, |now| texts(now) == of(&[(NET, &round.to_string())])).await;
        assert_eq!(back.problems, []);
    }
    // Removed and made anew in place. What is seen on the way depends on when it is looked at.
    fs::remove_dir_all(&bed.root).expect("it can be removed");
    bed.write(&format!("{PORT}.json"), "1");
    until(&mut watch, |now| texts(now) == of(&[(PORT, "1")]) && now.problems.is_empty()).await;
    // The new folders are watched as the old ones were.
    bed.write(&format!("{PORT}.json"), "2");
    until(&mut watch, |now| texts(now) == of(&[(PORT, "2")])).await;
}

#[tokio::test]
async fn a_storm_is_few_looks_and_nothing_is_lost() {
    let bed = Bed::new();
    let store = bed.store();
    let mut watch = bed.watch(&store).await;
    let name = |count: usize| format!("networks/00000000-0000-4000-8000-{count:012}");
    for count in 0..1000 {
        bed.write(&format!("{}.json", name(count)), "{}");
    }
    let all = until(&mut watch, |now| now.values.len() == 1000).await;
    assert!(all.revision <= 200, "{} looks for 1000 files", all.revision);
    for count in 0..1000 {
        let file = format!("{}.json", name(count));
        if count % 2 == 0 { bed.remove(&file) } else { bed.write(&file, "[]") }
    }
    let half = until(&mut watch, |now| {
        now.values.len() == 500 && texts(now).values().all(|text| text == "[]")
    })
    .await;
    assert!(half.values.contains_key(&key(&name(999))));
}

#[test]
fn a_folder_that_cannot_be_entered_is_not_an_empty_one() {
    let bed = Bed::new();
    bed.write(&format!("{NET}.json"), "1");
    bed.write(&format!("{PORT}.json"), "2");
    let mut scanner = scan::Scanner::new(bed.root.clone());
    scanner.scan(&mut |_| {}).expect("the directory is there");
    let nodes = bed.root.join("nodes");
    fs::rename(&nodes, bed.root.join(".nodes")).expect("a rename");
    // A link to itself cannot be entered by anybody, not even by root.
    symlink(&nodes, &nodes).expect("a link");
    assert!(scanner.scan(&mut |_| {}).expect("the directory is there"));
    assert_eq!(
        bed.said(&scanner.listing().problems),
        [
            "DIR/nodes: cannot be read: Too many levels of symbolic links (os error 40); what was read \
          there last stays in force; let the user that runs viaduct read and enter it"
        ]
    );
    assert_eq!(texts(&scanner.listing()), of(&[(NET, "1"), (PORT, "2")]));
    fs::remove_file(&nodes).expect("the link");
    scanner.scan(&mut |_| {}).expect("the directory is there");
    assert_eq!(texts(&scanner.listing()), of(&[(NET, "1")]));
}

#[tokio::test]
async fn values_are_put_and_deleted() {
    let bed = Bed::new();
    let store = bed.store();
    let (net, value) = (key(NET), json!({"type": "local"}));
    store.put(&net, &value).await.expect("it can be written");
    store.put(&net, &value).await.expect("and again");
    let text = fs::read_to_string(bed.file(NET)).expect("it is there");
    assert_eq!(text, "{\n  \"type\": \"local\"\n}\n");
    let names: Vec<_> = fs::read_dir(bed.root.join("networks")).expect("a folder").collect();
    assert_eq!(names.len(), 1, "nothing is left beside it: {names:?}");
    assert!(store.delete(&net).await.expect("it can be deleted"));
    assert!(!store.delete(&net).await.expect("it is gone"));

    let state = key("state/h/alive");
    let refused = store.put(&state, &value).await.expect_err("a report");
    assert!(matches!(&refused, StoreError::NotDesired(key) if *key == state), "{refused}");
    let huge = json!("x".repeat(VALUE_OCTETS_MAX));
    let refused = store.put(&net, &huge).await.expect_err("too large").to_string();
    assert_eq!(refused, format!("{NET}: the value has 4194307 octets; keep it within 4194304"));

    // The directory itself is never made: empty, it would be a wish.
    fs::remove_dir_all(&bed.root).expect("it can be removed");
    for refused in [store.put(&net, &value).await.err(), store.delete(&net).await.err()] {
        assert!(matches!(refused, Some(StoreError::Missing(path)) if path == bed.root));
    }
    assert!(!bed.root.exists());
}

fn state_files(root: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.join("state")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some() {
                let name = path.strip_prefix(root).expect("inside").display().to_string();
                files.insert(name, fs::read_to_string(path).expect("a file"));
            }
        }
    }
    files
}

#[tokio::test]
async fn reports_are_written_once_and_go_with_the_claim() {
    let bed = Bed::new();
    let store = bed.store();
    let host = "h".parse().expect("a name");
    let port: PortUuid = "aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa".parse().expect("a UUID");
    let file = format!("state/h/ports/{port}.json");
    // Left by a process that crashed, and by another host that shares the directory.
    bed.write("state/h/ports/bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb.json", "old");
    bed.write("state/other/alive.json", "1");

    let mut claim: Box<dyn Reporter> = store.claim(&host).await.expect("nobody has it");
    let mut state = ActualState::default();
    state.ports.insert(port, PortState::new(Status::Waiting, Some("no socket yet".to_owned())));
    assert_eq!(claim.report(&state).await.expect("it can be written"), 2);
    let written = state_files(&bed.root);
    assert_eq!(
        written.keys().map(String::as_str).collect::<Vec<_>>(),
        ["state/h/alive.json", file.as_str(), "state/other/alive.json"]
    );
    assert!(written["state/h/alive.json"].contains(&format!("\"pid\": {}", std::process::id())));
    assert!(written[&file].contains("\"reason\": \"no socket yet\""), "{}", written[&file]);

    let stamp = || fs::metadata(bed.root.join(&file)).and_then(|it| it.modified()).expect("it");
    let before = stamp();
    assert_eq!(claim.report(&state).await.expect("nothing to do"), 0);
    assert_eq!(stamp(), before);
    // Somebody deletes a report: it is written again.
    bed.remove(&file);
    assert_eq!(claim.report(&state).await.expect("one to write"), 1);
    assert_eq!(state_files(&bed.root), written);

    // Another process, which a second claim stands for, is kept out.
    let refused = store.claim(&host).await.err().expect("it is taken").to_string();
    let expected = format!(
        "DIR/state/h/.lock: process {} already runs for host `h` on this store; stop it, or set \
         another `host` in the configuration",
        std::process::id()
    );
    assert_eq!(refused.replace(&bed.root.display().to_string(), "DIR"), expected);
    let elsewhere = store.claim(&"h2".parse().expect("a name")).await;
    drop(elsewhere.expect("another host is another claim"));

    claim.withdraw().await.expect("it can be deleted");
    let left: Vec<String> = state_files(&bed.root).into_keys().collect();
    assert_eq!(left, ["state/h2/alive.json", "state/other/alive.json"]);
    drop(store.claim(&host).await.expect("free again"));
}

#[tokio::test]
async fn reports_are_no_changes() {
    let bed = Bed::new();
    let store = bed.store();
    let host = "h".parse().expect("a name");
    let mut watch = bed.watch(&store).await;
    let mut claim = store.claim(&host).await.expect("nobody has it");
    let mut state = ActualState::default();
    for last in 0..10u8 {
        let port = PortUuid::from(uuid::Uuid::from_bytes([last; 16]));
        state.ports.insert(port, PortState::new(Status::Ready, None));
        claim.report(&state).await.expect("it can be written");
    }
    bed.write(&format!("{NET}.json"), "1");
    let seen = until(&mut watch, |_| true).await;
    assert_eq!((seen.revision, texts(&seen)), (1, of(&[(NET, "1")])));
}

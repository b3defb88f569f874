//! Learning, forgetting, and what a port can and cannot do to others.

use super::*;

fn options() -> FdbOptions {
    FdbOptions { entries: 1024, ageing_seconds: 300, port_quota: 512, domain_quota: 900, seed: 7 }
}

fn domain(number: usize) -> DomainId {
    DomainId::new(number).unwrap()
}

fn port(number: usize) -> PortId {
    PortId::new(number).unwrap()
}

fn mac(number: u64) -> Mac {
    Mac::from_bits(0x0200_0000_0000 + number)
}

/// Learns as many addresses as it takes bursts for.
fn learn_all(fdb: &Fdb, addresses: impl Iterator<Item = u64>, of: PortId, now: u32) {
    for number in addresses {
        fdb.learner(now).hear(domain(1), mac(number), of);
    }
}

impl Learner<'_> {
    fn hear(&mut self, domain: DomainId, mac: Mac, port: PortId) {
        self.learn(self.place(domain, mac), port);
    }

    fn seek(&self, domain: DomainId, mac: Mac) -> Option<PortId> {
        self.lookup(self.place(domain, mac))
    }
}

#[test]
fn addresses_are_learned_moved_and_aged() {
    let fdb = Fdb::new(options());
    let mut now = fdb.learner(10);
    assert_eq!(now.seek(domain(1), mac(1)), None);
    now.hear(domain(1), mac(1), port(3));
    assert_eq!(now.seek(domain(1), mac(1)), Some(port(3)));
    assert_eq!(now.seek(domain(2), mac(1)), None, "domains are apart");
    now.hear(domain(1), mac(1), port(4));
    assert_eq!(now.seek(domain(1), mac(1)), Some(port(4)));
    assert_eq!((fdb.addresses_of(port(3)), fdb.addresses_of(port(4))), (0, 1));

    assert_eq!(fdb.learner(310).seek(domain(1), mac(1)), Some(port(4)));
    assert_eq!(fdb.learner(311).seek(domain(1), mac(1)), None, "aged before any sweep");
    fdb.learner(200).hear(domain(1), mac(1), port(4));
    assert_eq!(fdb.learner(311).seek(domain(1), mac(1)), Some(port(4)), "refreshed");
    fdb.sweep(501);
    let statistics = fdb.statistics();
    assert_eq!((statistics.entries, statistics.aged, statistics.moved), (0, 1, 1));
}

#[test]
fn what_an_earlier_program_learned_is_as_old_as_it_is() {
    let fdb = Fdb::new(options());
    fdb.learner(300).hear(domain(1), mac(1), port(3));
    assert!(!fdb.restore(domain(1), mac(1), port(4), 290), "what was heard since is newer");
    assert!(fdb.restore(domain(1), mac(2), port(4), 100));
    assert_eq!(fdb.learner(400).seek(domain(1), mac(1)), Some(port(3)));
    assert_eq!(fdb.learner(400).seek(domain(1), mac(2)), Some(port(4)));
    assert_eq!(fdb.learner(401).seek(domain(1), mac(2)), None, "its time was up");

    // As many as a port may have: a file is no way around that.
    let restored = (10..2000).filter(|it| fdb.restore(domain(1), mac(*it), port(5), 300)).count();
    assert!(restored > 500, "{restored}");
    assert!(fdb.addresses_of(port(5)) <= options().port_quota);
}

#[test]
fn a_refresh_is_a_store_only_now_and_then() {
    let fdb = Fdb::new(options());
    fdb.learner(0).hear(domain(1), mac(1), port(1));
    let seen = || fdb.entries(0)[0].seen_seconds;
    fdb.learner(37).hear(domain(1), mac(1), port(1));
    assert_eq!(seen(), 0, "an eighth of 300 s has not passed");
    fdb.learner(38).hear(domain(1), mac(1), port(1));
    assert_eq!(seen(), 38);
}

#[test]
fn flushes_take_what_they_say_and_no_more() {
    let fdb = Fdb::new(options());
    for number in 0..10 {
        fdb.learner(0).hear(domain(number % 2), mac(number as u64), port(number % 5));
    }
    fdb.flush_domain(domain(0));
    assert_eq!(fdb.entries(0).len(), 5);
    assert!(fdb.entries(0).iter().all(|entry| entry.domain == domain(1)));
    fdb.flush_port(port(1));
    assert_eq!(fdb.entries(0).len(), 4);
    assert_eq!(fdb.statistics().entries, 4);
}

#[test]
fn a_flood_of_addresses_stays_in_its_quota_and_leaves_others_alone() {
    let fdb = Fdb::new(options());
    learn_all(&fdb, 0..50, port(1), 0);
    learn_all(&fdb, 1000..101_000, port(2), 0);
    assert_eq!(fdb.addresses_of(port(2)), 512);
    let now = fdb.learner(0);
    for number in 0..50 {
        assert_eq!(now.seek(domain(1), mac(number)), Some(port(1)), "{number}");
    }
    let statistics = fdb.statistics();
    assert!(statistics.over_quota > 0);
    // A newcomer still finds room.
    learn_all(&fdb, 200_000..200_050, port(3), 0);
    assert_eq!(fdb.addresses_of(port(3)), 50);
}

#[test]
fn a_domain_has_a_quota_of_its_own() {
    let fdb = Fdb::new(FdbOptions { domain_quota: 100, ..options() });
    for number in 0..1000 {
        fdb.learner(0).hear(domain(1), mac(number), port(number as usize % 20));
    }
    let statistics = fdb.statistics();
    assert_eq!(statistics.entries, 100);
    fdb.learner(0).hear(domain(2), mac(1), port(1));
    assert_eq!(fdb.learner(0).seek(domain(2), mac(1)), Some(port(1)));
}

#[test]
fn a_full_table_makes_room_at_the_expense_of_the_heaviest() {
    let unlimited = FdbOptions { port_quota: 10_000, domain_quota: 10_000, ..options() };
    let fdb = Fdb::new(unlimited);
    learn_all(&fdb, 0..20_000, port(1), 0);
    let full = fdb.addresses_of(port(1));
    assert!(full > 1000, "two choices of four ways fill a table well: {full}");
    learn_all(&fdb, 50_000..50_100, port(2), 0);
    assert_eq!(fdb.addresses_of(port(2)), 100);
    // The heavy one cannot take these places back.
    learn_all(&fdb, 100_000..120_000, port(1), 0);
    assert_eq!(fdb.addresses_of(port(2)), 100);
    assert_eq!(fdb.statistics().entries, (fdb.addresses_of(port(1)) + 100) as usize);
}

#[test]
fn one_burst_brings_a_bounded_number_of_addresses() {
    let fdb = Fdb::new(options());
    let mut burst = fdb.learner(0);
    for number in 0..64 {
        burst.hear(domain(1), mac(number), port(1));
    }
    assert_eq!(fdb.statistics().entries, INSERTS_PER_BURST as usize);
    assert_eq!(fdb.statistics().deferred, 64 - u64::from(INSERTS_PER_BURST));
}

#[test]
fn an_address_that_flaps_is_held() {
    let fdb = Fdb::new(options());
    for number in 0..100 {
        fdb.learner(5).hear(domain(1), mac(1), port(number % 2));
    }
    let statistics = fdb.statistics();
    assert_eq!(statistics.moved, u64::from(MOVES_PER_SECOND));
    assert!(statistics.damped > 40);
    let held = fdb.learner(5).seek(domain(1), mac(1)).unwrap();
    let other = port(1 - held.index());
    fdb.learner(6).hear(domain(1), mac(1), other);
    assert_eq!(fdb.learner(6).seek(domain(1), mac(1)), Some(other), "a second later it may");
}

#[test]
fn workers_learn_side_by_side_and_the_ledger_agrees() {
    let fdb = std::sync::Arc::new(Fdb::new(options()));
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            let fdb = std::sync::Arc::clone(&fdb);
            std::thread::spawn(move || {
                for round in 0..20_000_u64 {
                    let number = round.wrapping_mul(0x9e37_79b9) % 400;
                    fdb.learner((round / 1000) as u32).hear(domain(1), mac(number), port(thread));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let by_port: u32 = (0..4).map(|number| fdb.addresses_of(port(number))).sum();
    let entries = fdb.entries(20);
    assert_eq!(entries.len(), by_port as usize);
    let distinct: std::collections::BTreeSet<_> = entries.iter().map(|entry| entry.mac).collect();
    assert_eq!(distinct.len(), entries.len(), "no address twice");
    for number in 0..4 {
        let listed = entries.iter().filter(|entry| entry.port == port(number)).count();
        assert_eq!(listed, fdb.addresses_of(port(number)) as usize);
    }
}

#[test]
fn limits_change_while_the_table_is_in_use() {
    let fdb = Fdb::new(options());
    learn_all(&fdb, 0..20, port(1), 0);
    fdb.limit(300, 10, 900);
    learn_all(&fdb, 20..30, port(1), 0);
    assert_eq!(fdb.addresses_of(port(1)), 20, "no more than there were");
    // Who has its quota may still replace its own.
    let statistics = fdb.statistics();
    assert_eq!(statistics.over_quota + statistics.evicted, 10);
    assert!(fdb.learner(200).seek(domain(1), mac(1)).is_some());
    fdb.limit(100, 10, 900);
    assert_eq!(fdb.learner(200).seek(domain(1), mac(1)), None, "it is too old now");
    fdb.limit(100, 512, 5);
    let before = fdb.statistics().entries;
    learn_all(&fdb, 40..50, port(2), 200);
    // Those that are too old may make room for others of the domain.
    assert_eq!(fdb.statistics().entries, before, "the domain has more than its quota");
    assert_eq!(fdb.addresses_of(port(1)) + fdb.addresses_of(port(2)), before as u32);
}

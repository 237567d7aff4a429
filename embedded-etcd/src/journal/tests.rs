//! Crashes at every byte, and bytes that change: what is read is always a state that was.

use std::time::Instant;

use bytes::Bytes;
use etcd_client::proto::{
    PbAlarmRequest, PbCompactionRequest, PbDeleteRequest, PbLeaseGrantRequest, PbPutRequest, PbTxnOpRequest,
    PbTxnRequest, PbTxnRequestOp,
};
use tonic::metadata::MetadataMap;

use super::*;
use crate::auth::Who;
use crate::auth::password::Hash;
use crate::node::{Identity, Node};
use crate::settings::Settings;

fn empty() -> Node {
    let identity = Identity { cluster_id: 1, member_id: 2 };
    Node::new(identity, Settings { kept: true, ..Settings::default() })
}

fn put(key: &str, lease: i64) -> PbPutRequest {
    PbPutRequest { key: key.into(), value: format!("value of {key}").into(), lease, ..Default::default() }
}

/// What a step has written, and the state after it.
type Step = (Vec<Record>, String);

fn history() -> Vec<Vec<Record>> {
    lived().into_iter().map(|(records, _)| records).collect()
}

/// All that a node may be asked to keep, step by step.
fn lived() -> Vec<Step> {
    let now = Instant::now();
    let metadata = MetadataMap::new();
    let who = Who::of(&metadata, now);
    let mut node = empty();
    let mut steps = vec![(node.dump(), told(&node))];
    let mut step = |act: &mut dyn FnMut(&mut Node) -> bool| {
        assert!(act(&mut node), "nothing is refused");
        let records = node.take_unsaved();
        assert!(!records.is_empty(), "each step changes something");
        steps.push((records, told(&node)));
    };
    step(&mut |node| {
        node.lead(now);
        true
    });
    for key in ["a", "b", "a"] {
        step(&mut |node| node.put(who, put(key, 0)).is_ok());
    }
    let grant = |id| PbLeaseGrantRequest { id, ttl: 60 };
    step(&mut |node| node.grant(who, &grant(7), now).is_ok());
    step(&mut |node| node.grant(who, &grant(8), now).is_ok());
    step(&mut |node| node.put(who, put("leased", 7)).is_ok());
    let op = |request| PbTxnRequestOp { request: Some(request) };
    let delete = PbDeleteRequest { key: "a".into(), ..Default::default() };
    let success =
        vec![op(PbTxnOpRequest::RequestPut(put("c", 7))), op(PbTxnOpRequest::RequestDeleteRange(delete))];
    let txn = PbTxnRequest { success, ..Default::default() };
    step(&mut |node| node.txn(who, txn.clone()).is_ok());
    step(&mut |node| node.compact(who, &PbCompactionRequest { revision: 4, physical: true }).is_ok());
    step(&mut |node| node.put(who, put("a", 8)).is_ok());
    step(&mut |node| node.revoke(who, 7).is_ok());
    step(&mut |node| node.revoke(who, 8).is_ok());
    let hash = Hash::of("secret").unwrap();
    step(&mut |node| node.administer(who, |auth| auth.user_add("root", Some(hash.clone()))).is_ok());
    step(&mut |node| node.administer(who, |auth| auth.user_add("certified", None)).is_ok());
    step(&mut |node| node.administer(who, |auth| auth.user_grant("root", "root")).is_ok());
    let alarm = PbAlarmRequest { action: 1, member_id: 2, alarm: 1 };
    step(&mut |node| node.alarm(who, &alarm).is_ok());
    let alarm = PbAlarmRequest { action: 2, ..alarm };
    step(&mut |node| node.alarm(who, &alarm).is_ok());
    step(&mut |node| node.administer(who, |auth| auth.enable()).is_ok());
    steps
}

/// The state after records, in a form that can be compared: whatever is read, watched or asked.
fn state(records: Vec<Record>) -> String {
    let mut node = empty();
    node.restore(records, Instant::now()).unwrap();
    told(&node)
}

fn told(node: &Node) -> String {
    let mut dump = node.dump();
    // How much was written in all is a figure, not a state.
    if let Some(crate::pb::journal::record::What::Start(start)) =
        dump.first_mut().and_then(|r| r.what.as_mut())
    {
        start.index = 0;
    }
    format!("{dump:?} {} {}", node.store.size().used, node.store.hash(node.store.revision()))
}

fn bytes_of(records: &[Record]) -> Vec<u8> {
    let mut bytes = frame::HEADER.to_vec();
    records.iter().for_each(|record| frame::encode(record, &mut bytes));
    bytes
}

#[test]
fn a_file_that_is_cut_anywhere_holds_the_state_after_one_of_its_records() {
    let records = history().concat();
    let bytes = bytes_of(&records);
    let mut states: Vec<(usize, String)> = Vec::new();
    for count in 0..=records.len() {
        states.push((bytes_of(&records[..count]).len(), state(records[..count].to_vec())));
    }
    for length in 0..=bytes.len() {
        let contents = frame::decode(&bytes[..length]).expect("a tail that is torn is no damage");
        let expected = states.iter().rfind(|(end, _)| *end <= length);
        let (end, expected) = expected.map_or((0, &states[0].1), |(end, state)| (*end, state));
        assert_eq!(contents.sound, end, "cut to {length} bytes");
        assert_eq!(&state(contents.records), expected, "cut to {length} bytes");
    }
}

#[test]
fn a_file_that_was_cut_goes_on_where_it_was_cut() {
    let records = history().concat();
    let bytes = bytes_of(&records);
    // Each of these takes files of its own; the lengths in between are the other test's.
    for length in (0..=bytes.len()).step_by(61) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("journal"), &bytes[..length]).unwrap();
        let (mut journal, kept) = Journal::open(folder.path()).unwrap();
        let mut node = empty();
        node.restore(kept, Instant::now()).unwrap();
        journal.rewrite(&node.dump()).unwrap();
        node.lead(Instant::now());
        node.store.write().put(Bytes::from_static(b"after"), Bytes::from_static(b"the crash"), 0);
        let expected = node.dump();
        journal.append(&node.take_unsaved()).unwrap();
        journal.rewrite(&expected).unwrap();
        drop(journal);
        let (_journal, again) = Journal::open(folder.path()).unwrap();
        assert_eq!(state(again), state(expected), "cut to {length} bytes");
    }
}

#[test]
fn a_byte_that_changed_is_found_or_cuts_the_rest_off_and_makes_no_other_state() {
    let records = history().concat();
    let bytes = bytes_of(&records);
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x20;
        if let Ok(contents) = frame::decode(&changed) {
            assert!(records.starts_with(&contents.records), "byte {at}");
            assert!(contents.records.len() < records.len(), "byte {at} went unnoticed");
        }
    }
    let mut zeros = bytes.clone();
    zeros.extend_from_slice(&[0; 100]);
    assert_eq!(frame::decode(&zeros).unwrap().sound, bytes.len(), "zeros are a torn tail");
}

#[test]
fn what_is_read_is_the_state_that_was() {
    let mut records = Vec::new();
    for (count, (step, live)) in lived().into_iter().enumerate() {
        records.extend(step);
        assert_eq!(state(records.clone()), live, "after step {count}");
    }
}

#[test]
fn what_is_written_anew_is_the_same_state() {
    let records = history().concat();
    let mut node = empty();
    node.restore(records.clone(), Instant::now()).unwrap();
    assert_eq!(state(node.dump()), state(records));
}

#[test]
fn a_folder_is_one_process_at_a_time_and_damage_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, nothing) = Journal::open(folder.path()).unwrap();
    assert!(nothing.is_empty());
    let second = Journal::open(folder.path()).unwrap_err();
    assert!(second.to_string().contains("another process has this data folder"), "{second}");
    let records = history().concat();
    journal.rewrite(&records).unwrap();
    drop(journal);

    let path = folder.path().join("journal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[30] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let damaged = Journal::open(folder.path()).unwrap_err();
    assert!(damaged.to_string().contains("is damaged at byte 8 of"), "{damaged}");
}

#[test]
fn a_file_far_larger_than_what_it_says_has_grown() {
    let folder = tempfile::tempdir().unwrap();
    let (mut journal, _) = Journal::open(folder.path()).unwrap();
    journal.rewrite(&history().concat()).unwrap();
    let mut node = empty();
    let metadata = MetadataMap::new();
    let mut appended = 0;
    while !journal.has_grown() {
        let request = PbPutRequest { key: "k".into(), value: vec![b'v'; 1_000_000], ..Default::default() };
        node.put(Who::of(&metadata, Instant::now()), request).unwrap();
        journal.append(&node.take_unsaved()).unwrap();
        appended += 1;
    }
    assert!((4..=6).contains(&appended), "after {appended} MB");
    journal.rewrite(&node.dump()).unwrap();
    assert!(!journal.has_grown());
}

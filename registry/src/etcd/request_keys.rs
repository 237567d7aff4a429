//! Which keys a request is about, for the message when etcd denies it: etcd says no more than "permission denied". Only read
//! then; the fields are those of etcd's `rpc.proto`.

use std::fmt::Write as _;

use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Keys {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    end: Vec<u8>,
}

/// Its second field is the value.
#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Compare {
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "64")]
    end: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(message, optional, tag = "1")]
    range: Option<Keys>,
    #[prost(message, optional, tag = "2")]
    put: Option<Put>,
    #[prost(message, optional, tag = "3")]
    delete: Option<Keys>,
}

#[derive(Clone, PartialEq, Message)]
struct Txn {
    #[prost(message, repeated, tag = "1")]
    compares: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    success: Vec<Operation>,
    #[prost(message, repeated, tag = "3")]
    failure: Vec<Operation>,
}

/// The keys of the request with this path and framed body, such as `read /services/greeter/*`; empty where it has none.
pub(super) fn keys_of(path: &str, body: &[u8]) -> String {
    let message = body.get(5..).unwrap_or_default();
    let mut said = Said::default();
    match path {
        "/etcdserverpb.KV/Range" => said.range("read", Keys::decode(message).ok()),
        "/etcdserverpb.KV/DeleteRange" => said.range("write", Keys::decode(message).ok()),
        "/etcdserverpb.KV/Put" => said.put(Put::decode(message).ok()),
        "/etcdserverpb.KV/Txn" => {
            let txn = Txn::decode(message).unwrap_or_default();
            for compare in txn.compares {
                said.add("read", &compare.key, &compare.end);
            }
            for operation in txn.success.into_iter().chain(txn.failure) {
                said.range("read", operation.range);
                said.put(operation.put);
                said.range("write", operation.delete);
            }
        }
        _ => {}
    }
    said.0.join(", ")
}

#[derive(Default)]
struct Said(Vec<String>);

impl Said {
    fn range(&mut self, right: &str, keys: Option<Keys>) {
        if let Some(keys) = keys {
            self.add(right, &keys.key, &keys.end);
        }
    }

    fn put(&mut self, put: Option<Put>) {
        if let Some(put) = put {
            self.add("write", &put.key, &[]);
        }
    }

    fn add(&mut self, right: &str, key: &[u8], end: &[u8]) {
        let shown = |key: &[u8]| String::from_utf8_lossy(key).escape_debug().to_string();
        let mut text = format!("{right} {}", shown(key));
        let is_prefix = end.len() == key.len()
            && key.split_last().is_some_and(|(last, head)| {
                end.split_last().is_some_and(|(end, tail)| head == tail && last.checked_add(1) == Some(*end))
            });
        if is_prefix {
            text.push('*');
        } else if !end.is_empty() {
            let _ = write!(text, " up to {}", shown(end));
        }
        if !self.0.contains(&text) {
            self.0.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &impl Message) -> Vec<u8> {
        let mut body = vec![0; 5];
        body.extend(message.encode_to_vec());
        body
    }

    #[test]
    fn a_denied_request_names_its_keys_and_rights() {
        let keys = |key: &str, end: &str| Keys { key: key.into(), end: end.into() };
        let range = framed(&keys("/services/a/", "/services/a0"));
        assert_eq!(keys_of("/etcdserverpb.KV/Range", &range), "read /services/a/*");
        let put = framed(&keys("/k", "the value"));
        assert_eq!(keys_of("/etcdserverpb.KV/Put", &put), "write /k");
        let delete = framed(&keys("a", "c"));
        assert_eq!(keys_of("/etcdserverpb.KV/DeleteRange", &delete), "write a up to c");
        let txn = Txn {
            compares: vec![Compare { key: "/x".into(), end: vec![] }],
            success: vec![Operation { put: Some(Put { key: "/x".into() }), ..Operation::default() }],
            failure: vec![Operation { range: Some(keys("/x", "")), ..Operation::default() }],
        };
        assert_eq!(keys_of("/etcdserverpb.KV/Txn", &framed(&txn)), "read /x, write /x");
        assert_eq!(keys_of("/etcdserverpb.Lease/LeaseGrant", &range), "");
        assert_eq!(keys_of("/etcdserverpb.KV/Txn", b"broken"), "");
    }
}

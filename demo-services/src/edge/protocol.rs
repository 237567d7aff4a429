//! The protocols that the edge speaks inside, from their descriptors: which method a path means, and its messages from
//! and to JSON. No code for any service: a protocol that is added to `svc-proto` is there.
//!
//! The service `greeter` in the catalog speaks the package `greeter.v1`; `/v1/greeter/SayHello` is its method.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut};
use http::uri::PathAndQuery;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, Kind, MessageDescriptor, MethodDescriptor,
    SerializeOptions,
};
use serde::de::DeserializeSeed;
use serde_json::{Map, Value};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::problem::Problem;
use crate::error::BoxError;

/// The end of a package's name, which is the beginning of the paths.
const VERSION: &str = "v1";

/// By the names of services, their methods by name.
#[derive(Clone, Debug)]
pub(super) struct Protocols(BTreeMap<String, BTreeMap<String, Method>>);

/// A method.
#[derive(Clone, Debug)]
pub(super) struct Method {
    descriptor: MethodDescriptor,
    path: PathAndQuery,
}

impl Protocols {
    /// Those of `svc-proto`.
    pub(super) fn load() -> Result<Protocols, BoxError> {
        let pool = DescriptorPool::decode(svc_proto::FILE_DESCRIPTOR_SET)?;
        let mut all = BTreeMap::<_, BTreeMap<_, _>>::new();
        for service in pool.services() {
            let Some((name, VERSION)) = service.package_name().rsplit_once('.') else { continue };
            for descriptor in service.methods() {
                let path = format!("/{}/{}", service.full_name(), descriptor.name()).parse()?;
                let method = Method { descriptor: descriptor.clone(), path };
                all.entry(name.to_owned()).or_default().insert(descriptor.name().to_owned(), method);
            }
        }
        Ok(Protocols(all))
    }

    /// The services that may be called.
    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The methods of a service.
    pub(super) fn methods(&self, service: &str) -> impl Iterator<Item = &Method> {
        self.0.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// What a path means.
    pub(super) fn find(&self, service: &str, method: &str) -> Result<&Method, Problem> {
        let known = |names: Vec<&str>| names.join(", ");
        let Some(methods) = self.0.get(service) else {
            let names = known(self.services().collect());
            return Err(Problem::no_such_path(format!("there is no service {service:?}; there are {names}")));
        };
        methods.get(method).ok_or_else(|| {
            let names = known(methods.keys().map(String::as_str).collect());
            Problem::no_such_path(format!("{service} has no method {method:?}; it has {names}"))
        })
    }
}

impl Method {
    pub(super) fn name(&self) -> &str {
        self.descriptor.name()
    }

    /// Its path in gRPC.
    pub(super) fn path(&self) -> PathAndQuery {
        self.path.clone()
    }

    /// Whether the protocol says that it changes nothing: only such a method may be called by GET, which anybody's
    /// page can have a browser send.
    pub(super) fn is_safe(&self) -> bool {
        const NO_SIDE_EFFECTS: i32 = 1;
        let options = self.descriptor.options();
        options
            .get_field_by_name("idempotency_level")
            .is_some_and(|level| level.as_enum_number() == Some(NO_SIDE_EFFECTS))
    }

    /// Whether it answers with many messages.
    pub(super) fn is_stream(&self) -> bool {
        self.descriptor.is_server_streaming()
    }

    /// Whether its request is more than one message, which HTTP/JSON has no form for.
    pub(super) fn takes_stream(&self) -> bool {
        self.descriptor.is_client_streaming()
    }

    /// Whether every caller asks the same.
    pub(super) fn takes_nothing(&self) -> bool {
        self.descriptor.input().fields().len() == 0
    }

    /// Whether the request has such a field.
    pub(super) fn takes(&self, field: &str) -> bool {
        self.descriptor.input().get_field_by_name(field).is_some()
    }

    /// The request that JSON writes; what is wrong is named by its field.
    pub(super) fn request(&self, json: &[u8]) -> Result<DynamicMessage, Problem> {
        /// Messages of one type, from JSON.
        struct Seed(MessageDescriptor);

        impl<'de> DeserializeSeed<'de> for Seed {
            type Value = DynamicMessage;

            fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<DynamicMessage, D::Error> {
                let strict = DeserializeOptions::new().deny_unknown_fields(true);
                DynamicMessage::deserialize_with_options(self.0, from, &strict)
            }
        }

        // An empty body is an empty message.
        let json = if json.is_empty() { b"{}" } else { json };
        let mut from = serde_json::Deserializer::from_slice(json);
        let mut track = serde_path_to_error::Track::new();
        let message = Seed(self.descriptor.input())
            .deserialize(serde_path_to_error::Deserializer::new(&mut from, &mut track))
            .map_err(|error| match track.path().to_string() {
                path if path == "." => Problem::invalid(error.to_string()),
                path => Problem::invalid(format!("{path}: {error}")),
            })?;
        from.end().map_err(|error| Problem::invalid(error.to_string()))?;
        Ok(message)
    }

    /// The request that a query writes: scalar fields by name, repeated ones as often as wanted.
    pub(super) fn request_of_query(&self, pairs: &[(String, String)]) -> Result<DynamicMessage, Problem> {
        let mut json = Map::new();
        for (name, text) in pairs {
            let field = self.descriptor.input().get_field_by_name(name);
            let Some(field) = field else {
                return Err(Problem::invalid(format!("{name}: there is no such field")));
            };
            // What is a number in JSON may be written as a string too (proto3's JSON mapping).
            let value = match field.kind() {
                Kind::Bool => text
                    .parse()
                    .map(Value::Bool)
                    .map_err(|_| Problem::invalid(format!("{name}: {text:?} is neither true nor false")))?,
                Kind::Message(_) => {
                    return Err(Problem::invalid(format!(
                        "{name}: a message has no place in a query; use POST"
                    )));
                }
                _ => Value::String(text.clone()),
            };
            if field.is_list() {
                let list = json.entry(name.clone()).or_insert_with(|| Value::Array(Vec::new()));
                if let Value::Array(items) = list {
                    items.push(value);
                }
            } else if json.insert(name.clone(), value).is_some() {
                return Err(Problem::invalid(format!("{name}: is there twice")));
            }
        }
        self.request(Value::Object(json).to_string().as_bytes())
    }

    /// What reads and writes its messages.
    pub(super) fn codec(&self) -> Dynamic {
        Dynamic(self.descriptor.output())
    }
}

/// A message as JSON: fields by their names in the protocol, those without a value too, 64-bit integers as numbers (ours
/// are below 2^53).
pub(super) fn to_json(message: &DynamicMessage) -> Result<Value, serde_json::Error> {
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false);
    message.serialize_with_options(serde_json::value::Serializer, &options)
}

/// Messages whose type is known at run time only: any request, and the answers of one method.
#[derive(Clone, Debug)]
pub(super) struct Dynamic(MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Dynamic;
    type Decoder = Dynamic;

    fn encoder(&mut self) -> Dynamic {
        self.clone()
    }

    fn decoder(&mut self) -> Dynamic {
        self.clone()
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        debug_assert!(to.has_remaining_mut(), "the buffer grows");
        message.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let bytes = from.copy_to_bytes(from.remaining());
        let message = DynamicMessage::decode(self.0.clone(), bytes);
        message.map(Some).map_err(|error| Status::internal(format!("an answer that cannot be read: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn protocols() -> Protocols {
        Protocols::load().expect("ours can be read")
    }

    fn json_of(service: &str, method: &str, json: &Value) -> Result<Value, String> {
        let protocols = protocols();
        let method = protocols.find(service, method).map_err(|problem| problem.to_string())?;
        let request = method.request(json.to_string().as_bytes()).map_err(|problem| problem.to_string())?;
        Ok(to_json(&request).expect("it is a message"))
    }

    #[test]
    fn each_versioned_package_is_a_service_by_its_name() {
        assert_eq!(protocols().services().collect::<Vec<_>>(), ["balance", "gift", "greeter"]);
    }

    #[test]
    fn a_request_is_written_in_json_with_its_fields_names() {
        let sent = json!({"gift_id": 1, "from_uid": "9007199254740991", "to_uids": [2, 3], "biz_id": "b"});
        let read = json!({"gift_id": 1, "from_uid": 9_007_199_254_740_991u64, "to_uids": [2, 3], "biz_id": "b",
            "scene_id": 0});
        assert_eq!(json_of("gift", "SendGift", &sent), Ok(read));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, part) in [
            (json!({"gift": 1}), "gift"),
            (json!({"gift_id": "x"}), "gift_id: "),
            (json!({"to_uids": [1, {}]}), "to_uids[1]: "),
            (json!([]), "expected"),
        ] {
            let error = json_of("gift", "SendGift", &json).unwrap_err();
            assert!(error.starts_with("40001 ") && error.contains(part), "{json}: {error}");
        }
        let error = json_of("gifts", "SendGift", &json!({})).unwrap_err();
        assert!(error.starts_with("40402 ") && error.contains("balance, gift, greeter"), "{error}");
        let error = json_of("gift", "Send", &json!({})).unwrap_err();
        assert!(error.starts_with("40402 ") && error.contains("SendGift"), "{error}");
    }

    #[test]
    fn a_query_is_a_request_of_scalars() {
        let protocols = protocols();
        let query = |method: &str, pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let method = protocols.find("gift", method).expect("it is there");
            method.request_of_query(&pairs).map(|request| to_json(&request).expect("it is a message"))
        };
        let watch = query("WatchGifts", &[("uid", "7"), ("after", "3")]).expect("both are fields");
        assert_eq!(watch, json!({"uid": 7, "after": 3}));
        let sent = query("SendGift", &[("to_uids", "1"), ("to_uids", "2")]).expect("a list");
        assert_eq!(sent["to_uids"], json!([1, 2]));
        for (pair, part) in [(("uid", "seven"), "uid"), (("user", "7"), "user: ")] {
            let error = query("WatchGifts", &[pair]).unwrap_err().to_string();
            assert!(error.starts_with("40001 ") && error.contains(part), "{error}");
        }
        assert!(query("WatchGifts", &[("uid", "1"), ("uid", "2")]).is_err());
    }

    #[test]
    fn only_what_changes_nothing_is_safe() {
        let protocols = protocols();
        let safe: Vec<&str> = ["balance", "gift", "greeter"]
            .into_iter()
            .flat_map(|service| protocols.methods(service))
            .filter(|method| method.is_safe())
            .map(Method::name)
            .collect();
        let expected = [
            "GetBalance",
            "ListTransactions",
            "GetSending",
            "ListGifts",
            "WatchGifts",
            "LotsOfReplies",
            "SayHello",
        ];
        assert_eq!(safe, expected);
    }
}

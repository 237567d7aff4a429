//! The gRPC methods that this program's protocols have, from their descriptors: names for metrics, of which callers must
//! not make up more, and which of them are streams.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message;
use prost_types::FileDescriptorSet;
use serde_json::{Value, json};

/// What gRFC A66 writes for a method that nobody has registered.
pub(crate) const OTHER: &str = "other";

struct Method {
    service: String,
    name: String,
    streams: bool,
}

/// Every method by its path, `/package.Service/Method`.
static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| {
    let sets = [
        svc_proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    ];
    // A set that the compiler of protocols has written can be read; a test says so.
    let sets = sets.into_iter().filter_map(|bytes| FileDescriptorSet::decode(bytes).ok());
    sets.flat_map(|set| set.file)
        .flat_map(|file| {
            let package = file.package.unwrap_or_default();
            file.service.into_iter().map(move |service| (package.clone(), service))
        })
        .flat_map(|(package, service)| {
            let service_name = format!("{package}.{}", service.name.unwrap_or_default());
            service.method.into_iter().map(move |method| {
                let streams = method.client_streaming() || method.server_streaming();
                let method =
                    Method { service: service_name.clone(), name: method.name.unwrap_or_default(), streams };
                (format!("/{}/{}", method.service, method.name), method)
            })
        })
        .collect()
});

/// The path without its first slash if it is a method's, or [`OTHER`].
pub(crate) fn name_of(path: &str) -> &'static str {
    let known = METHODS.get_key_value(path);
    known.and_then(|(path, _)| path.strip_prefix('/')).unwrap_or(OTHER)
}

/// The methods that stream in either direction, as a service config names them.
pub(crate) fn streams() -> impl Iterator<Item = Value> {
    let streams = METHODS.values().filter(|method| method.streams);
    streams.map(|method| json!({ "service": method.service, "method": method.name }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_their_paths() {
        assert_eq!(name_of("/greeter.v1.Greeter/SayHello"), "greeter.v1.Greeter/SayHello");
        assert_eq!(name_of("/grpc.health.v1.Health/Check"), "grpc.health.v1.Health/Check");
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert_eq!(Some(name_of(reflection)), reflection.strip_prefix('/'));
        assert_eq!(name_of("/greeter.v1.Greeter/Made/Up"), OTHER);
    }

    #[test]
    fn streams_are_told_from_unary_methods() {
        let streams: Vec<Value> = streams().collect();
        assert!(streams.contains(&json!({"service": "greeter.v1.Greeter", "method": "BidiHello"})));
        assert!(streams.contains(&json!({"service": "greeter.v1.Greeter", "method": "LotsOfGreetings"})));
        assert!(!streams.contains(&json!({"service": "greeter.v1.Greeter", "method": "SayHello"})));
    }
}

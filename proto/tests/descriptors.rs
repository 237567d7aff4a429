//! What gRPC reflection answers from: the packages, services and methods that other languages call by name.

use prost::Message as _;
use prost_types::FileDescriptorSet;

#[test]
fn reflection_lists_every_method_by_its_full_name() {
    let set = FileDescriptorSet::decode(svc_proto::FILE_DESCRIPTOR_SET).expect("a descriptor set");
    let mut methods: Vec<String> = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let stream = |is: Option<bool>| if is == Some(true) { "stream " } else { "" };
                methods.push(format!(
                    "{}.{}/{}: {}-> {}",
                    file.package(),
                    service.name(),
                    method.name(),
                    stream(method.client_streaming),
                    stream(method.server_streaming),
                ));
            }
        }
    }
    assert_eq!(
        methods,
        [
            "balance.v1.Balance/FreezeUserCoinForGift: -> ",
            "balance.v1.Balance/CompleteTransaction: -> ",
            "balance.v1.Balance/BatchAddUserCoin: -> ",
            "balance.v1.Balance/GetBalance: -> ",
            "balance.v1.Balance/ListTransactions: -> ",
            "gift.v1.Gift/ListGifts: -> ",
            "gift.v1.Gift/SendGift: -> ",
            "gift.v1.Gift/GetSending: -> ",
            "gift.v1.Gift/WatchGifts: -> stream ",
            "greeter.v1.Greeter/SayHello: -> ",
            "greeter.v1.Greeter/LotsOfReplies: -> stream ",
            "greeter.v1.Greeter/LotsOfGreetings: stream -> ",
            "greeter.v1.Greeter/BidiHello: stream -> stream ",
            "helloworld.Greeter/SayHello: -> ",
        ]
    );
}

/// Callers in other languages rely on the numbers; those of fields that the gRPC status replaced stay unused.
#[test]
fn the_numbers_of_a_freeze_are_settled() {
    let set = FileDescriptorSet::decode(svc_proto::FILE_DESCRIPTOR_SET).expect("a descriptor set");
    let file = set.file.iter().find(|file| file.package() == "balance.v1").expect("it is compiled");
    let fields = |name: &str| -> Vec<(String, i32)> {
        let message = file.message_type.iter().find(|message| message.name() == name).expect(name);
        message.field.iter().map(|field| (field.name().to_owned(), field.number())).collect()
    };
    let request = fields("FreezeUserCoinForGiftRequest");
    let settled =
        [("from_uid", 1), ("to_uid", 2), ("coin", 3), ("biz_type", 5), ("biz_id", 6), ("scene_id", 8)];
    assert_eq!(request, settled.map(|(name, number)| (name.to_owned(), number)));

    let name = "FreezeUserCoinForGiftResponse";
    assert_eq!(fields(name)[0], ("tx_id".to_owned(), 3));
    let response = file.message_type.iter().find(|message| message.name() == name).expect(name);
    // The end of a reserved range is exclusive.
    let reserved: Vec<_> =
        response.reserved_range.iter().flat_map(|range| range.start()..range.end()).collect();
    assert_eq!(reserved, [1, 2]);
}

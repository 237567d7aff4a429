//! What the README shows is what compiles: each line of its Rust code stands in the example that it names.

const README: &str = include_str!("../../README.md");
const EXAMPLES: [(&str, &str); 2] = [
    ("registry/examples/service.rs", include_str!("../../registry/examples/service.rs")),
    ("resolver/examples/client.rs", include_str!("../../resolver/examples/client.rs")),
];

#[test]
fn the_readmes_code_is_the_examples() {
    let blocks: Vec<_> =
        README.split("```rust\n").skip(1).filter_map(|rest| rest.split_once("```")).collect();
    assert_eq!(blocks.len(), EXAMPLES.len(), "a block of Rust for each example");
    for ((code, after), (path, example)) in blocks.into_iter().zip(EXAMPLES) {
        assert!(after.trim_start().starts_with("(The whole of it"), "{path} is named below its block");
        for line in code.lines().map(str::trim).filter(|line| !line.is_empty()) {
            assert!(example.contains(line), "{path} has no line {line:?}");
        }
    }
}

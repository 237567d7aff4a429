//! `balance --check`: it finds each thing that can be wrong with a ledger, and says so by its exit code.

use std::process::Output;

use tokio::process::Command;

use crate::crashes::balance_binary;
use crate::support::{Database, Instance, database_tests};

async fn check(database: &Database, arguments: &[&str]) -> Output {
    let mut command = Command::new(balance_binary());
    command.args(["--check", "--database", &database.address()]).args(arguments);
    command.kill_on_drop(true).output().await.expect("it runs")
}

database_tests! {
    async fn it_prints_what_the_ledger_holds(database: Database) {
        let Instance { client, .. } = &Instance::start(&database).await;
        client.add(1, 100, "in").await.expect("it is issued");
        let tx_id = client.freeze(1, 2, 10, "gift 1").await.expect("there is enough");
        client.confirm(&tx_id).await.expect("it is frozen");
        client.freeze(1, 2, 20, "gift 2").await.expect("there is enough");

        let output = check(&database, &[]).await;
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{text}");
        assert_eq!(text.lines().last(), Some("balance: 100 coins, ok"), "{text}");
        let output = check(&database, &["--output", "json"]).await;
        let figures: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let expected = serde_json::json!({
            "transactions": 3, "entries": 9, "accounts": 3, "available": 77, "frozen": 20, "house": 3,
            "issued": 100, "coins": 100, "sum": 0, "faults": [], "ok": true,
        });
        assert_eq!(figures, expected);
    }

    async fn it_fails_for_each_thing_that_is_wrong_and_names_it(database: Database) {
        let instance = Instance::start(&database).await;
        instance.client.add(1, 100, "in").await.expect("it is issued");
        instance.client.freeze(1, 2, 20, "gift").await.expect("there is enough");
        let wrongs = [
            (
                "UPDATE accounts SET balance = balance + 1 WHERE kind = 'available'",
                "UPDATE accounts SET balance = balance - 1 WHERE kind = 'available'",
                ["accounts that do not hold the sum of their entries", "sum        1"],
            ),
            (
                "UPDATE entries SET amount = amount + 1 WHERE kind = 'issuer'",
                "UPDATE entries SET amount = amount - 1 WHERE kind = 'issuer'",
                ["steps whose entries do not add up to zero", "sum        1"],
            ),
            (
                "UPDATE transactions SET coin = coin + 1 WHERE state = 'frozen'",
                "UPDATE transactions SET coin = coin - 1 WHERE state = 'frozen'",
                ["users whose frozen coins are not those of their transactions", "sum        0"],
            ),
            (
                "UPDATE transactions SET state = 'expired' WHERE state = 'frozen'",
                "UPDATE transactions SET state = 'frozen' WHERE state = 'expired'",
                ["transactions whose steps are not those of their state", "sum        0"],
            ),
        ];
        for (wrong, right, found) in wrongs {
            database.execute(wrong).await;
            let output = check(&database, &[]).await;
            assert_eq!(output.status.code(), Some(1), "{wrong}");
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(found.iter().all(|found| text.contains(found)), "{wrong}: {text}");
            assert!(text.trim_end().ends_with("not ok"), "{wrong}: {text}");
            database.execute(right).await;
            assert!(check(&database, &[]).await.status.success(), "{right}");
        }
    }

    async fn without_a_ledger_it_fails_and_says_where_it_looked(database: Database) {
        let output = check(&database, &[]).await;
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("--database"), "{text}");
        assert!(output.stdout.is_empty());
    }
}

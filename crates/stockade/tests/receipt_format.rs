//! Receipts of version 0.1 are read, and written in the same form.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;

use serde_json::{Value, json};
use stockade::Receipt;

/// A receipt in the form of version 0.1, with every kind of step and every optional field.
const RECEIPT: &str = include_str!("fixtures/every-step-0.1.json");

/// The receipt without steps, and its steps with the list that each belongs to.
fn receipt_and_steps() -> (Value, Vec<(&'static str, Value)>) {
    let mut receipt: Value = serde_json::from_str(RECEIPT).unwrap();
    let mut steps = Vec::new();
    for list in ["steps", "enter"] {
        let Value::Array(of_list) = std::mem::replace(&mut receipt[list], json!([])) else {
            panic!("'{list}' is not a list")
        };
        steps.extend(of_list.into_iter().map(|step| (list, step)));
    }
    (receipt, steps)
}

#[test]
fn every_step_of_a_0_1_receipt_is_read_and_written_unchanged() {
    let (receipt, steps) = receipt_and_steps();
    for (list, step) in steps {
        let mut with_step = receipt.clone();
        with_step[list] = json!([step]);
        let read: Receipt =
            serde_json::from_value(with_step.clone()).unwrap_or_else(|e| panic!("{step}: {e}"));
        assert_eq!(serde_json::to_value(&read).unwrap(), with_step, "{step}");
    }
}

/// A new kind of step needs a line in the fixture only if version 0.1 has it as well. A kind that disappears from
/// the fixture would no longer be tested.
#[test]
fn the_fixture_has_every_kind_of_version_0_1() {
    let (_, steps) = receipt_and_steps();
    let kinds = |list| {
        let of_list = steps.iter().filter(|(of, _)| *of == list);
        of_list.map(|(_, step)| step["kind"].as_str().unwrap()).collect::<BTreeSet<_>>().len()
    };
    assert_eq!((kinds("steps"), kinds("enter")), (14, 48));
}

//! Sends every wine of the data set (1,599 rows) to the server of `examples/axum_server.rs`, one request each.
//!
//! ```text
//! cargo run --all-features --example replay_wine -- http://127.0.0.1:PORT
//! ```

use serde::Deserialize;
use serde_json::{Map, Value};
use std::error::Error;

/// The data set's columns, by the names that the server takes.
const FEATURES: [&str; 11] = [
    "fixed_acidity",
    "volatile_acidity",
    "citric_acid",
    "residual_sugar",
    "chlorides",
    "free_sulfur_dioxide",
    "total_sulfur_dioxide",
    "density",
    "ph",
    "sulphates",
    "alcohol",
];

#[derive(Deserialize)]
struct Quality {
    quality: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("give the server's URL, such as http://127.0.0.1:8000")?;
    let client = reqwest::blocking::Client::new();
    let wines = linfa_datasets::winequality();
    let mut squares = 0.0;
    for (index, (wine, actual)) in wines.records().rows().into_iter().zip(wines.targets()).enumerate() {
        let named: Map<String, Value> =
            FEATURES.iter().zip(wine).map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        let request = client.post(format!("{url}/predict")).header("x-request-id", format!("wine-{index}")).json(&named);
        let answer: Quality = request.send()?.error_for_status()?.json()?;
        squares += (answer.quality - *actual as f64).powi(2);
    }
    let rows = wines.records().nrows();
    println!("replayed {rows} wines; the model's root mean square error is {:.3}", (squares / rows as f64).sqrt());
    Ok(())
}

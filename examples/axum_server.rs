//! A model server that logs every prediction: `POST /predict` answers the quality of a red wine from its eleven measurements.
//!
//! The model is a linear regression (linfa), trained at start on the wine quality data set that linfa-datasets ships.
//!
//! ```text
//! cargo run --all-features --example axum_server -- [CONFIG] [ADDR]
//! ```
//!
//! `CONFIG` is `config/simple.toml` when neither it nor `PREDLOG_CONFIG` is given; `ADDR` is a free port of 127.0.0.1. SIGTERM and SIGINT drain.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use linfa::prelude::{Fit, Predict};
use linfa_linear::{FittedLinearRegression, LinearRegression};
use ndarray::Array2;
use predlog::record::MAX_ID_BYTES;
use predlog::{Config, Logger, Outcome, Prediction};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

const MODEL_NAME: &str = "wine-quality";
const MODEL_VERSION: &str = "1";

/// What is measured of a wine, in the data set's order and units.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wine {
    fixed_acidity: f64,
    volatile_acidity: f64,
    citric_acid: f64,
    residual_sugar: f64,
    chlorides: f64,
    free_sulfur_dioxide: f64,
    total_sulfur_dioxide: f64,
    density: f64,
    ph: f64,
    sulphates: f64,
    alcohol: f64,
}

impl Wine {
    fn features(&self) -> [[f64; 11]; 1] {
        [[
            self.fixed_acidity,
            self.volatile_acidity,
            self.citric_acid,
            self.residual_sugar,
            self.chlorides,
            self.free_sulfur_dioxide,
            self.total_sulfur_dioxide,
            self.density,
            self.ph,
            self.sulphates,
            self.alcohol,
        ]]
    }
}

#[derive(Debug, Serialize)]
struct Quality {
    quality: f64,
}

#[derive(Clone)]
struct App {
    model: Arc<FittedLinearRegression<f64>>,
    logger: Logger,
}

async fn predict(State(app): State<App>, headers: HeaderMap, Json(wine): Json<Wine>) -> Result<Json<Quality>, StatusCode> {
    let start = Instant::now();
    let predicted = app.model.predict(&Array2::from(wine.features().to_vec()));
    let quality = Quality { quality: *predicted.first().ok_or(StatusCode::INTERNAL_SERVER_ERROR)? };

    let mut prediction = Prediction::new(MODEL_NAME, MODEL_VERSION, &wine, &quality)
        .status_code(200)
        .latency_ms(start.elapsed().as_secs_f64() * 1e3);
    let id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    // One that no prediction can have is a client's mistake, and no reason not to log what it asked.
    if let Some(id) = id.filter(|id| (1..=MAX_ID_BYTES).contains(&id.len())) {
        prediction = prediction.id(id);
    }
    // Never blocks and never fails the request; a drop is counted in the report.
    if let Outcome::Dropped(reason) = app.logger.log(prediction) {
        eprintln!("a prediction was not logged: {}", reason.name());
    }
    Ok(Json(quality))
}

fn train() -> Result<FittedLinearRegression<f64>, Box<dyn Error>> {
    let wines = linfa_datasets::winequality().map_targets(|quality| *quality as f64);
    Ok(LinearRegression::default().fit(&wines)?)
}

async fn stopped() {
    let listen = |kind| signal(kind).map_err(|error| eprintln!("cannot listen for a signal: {error}"));
    if let (Ok(mut terminate), Ok(mut interrupt)) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt())) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().or_else(|| std::env::var("PREDLOG_CONFIG").ok()).unwrap_or_else(|| "config/simple.toml".to_owned());
    let addr = args.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());

    let config = Config::load(Some(Path::new(&file)))?;
    let (logger, guard) = Logger::open(&config)?;
    let app = App { model: Arc::new(train()?), logger };
    let router = Router::new().route("/predict", post(predict)).with_state(app);
    let listener = tokio::net::TcpListener::bind(addr).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router).with_graceful_shutdown(stopped()).await?;

    // Blocks until what was accepted is stored, or the deadline passes.
    let report = tokio::task::spawn_blocking(move || guard.shutdown(Duration::from_secs(10))).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

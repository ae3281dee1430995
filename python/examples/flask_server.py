from flask import Flask, request

import predlog
from predlog.flask import PredictionLog

predlog.init(direct={"dir": "predlog-data"})
app = Flask(__name__)
PredictionLog(app, routes={"/predict": "wine"}, model_version="1")


@app.post("/predict")
def predict() -> dict[str, float]:
    return {"score": 0.5 * request.get_json()["alcohol"]}

"""A scikit-learn model behind Flask. PREDLOG_CONFIG names the configuration: config/simple.toml, config/kafka.toml, or one's own.

    PREDLOG_CONFIG=../config/kafka.toml gunicorn --workers 4 sklearn_flask:app
"""

from typing import Any

from flask import Flask, request
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

import predlog
from predlog.flask import PredictionLog

wine: Any = load_wine()
model = RandomForestClassifier(n_estimators=10, random_state=0).fit(wine.data, wine.target)

predlog.init()
app = Flask(__name__)
PredictionLog(app, routes={"/predict": "wine"}, model_version="1")


@app.post("/predict")
def predict() -> dict[str, object]:
    features = request.get_json()
    row = [features[name] for name in wine.feature_names]
    chances = model.predict_proba([row])[0].tolist()
    return {str(name): chance for name, chance in zip(wine.target_names, chances)}

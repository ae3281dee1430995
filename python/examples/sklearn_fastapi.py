"""A scikit-learn model behind FastAPI, wrapped: each row that it predicts is a record, by the names of its features.

    PREDLOG_CONFIG=../config/kafka.toml uvicorn --workers 4 sklearn_fastapi:app
"""

from typing import Any

from fastapi import FastAPI
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

import predlog

wine: Any = load_wine(as_frame=True)
predlog.init()
model = predlog.wrap(
    RandomForestClassifier(n_estimators=10, random_state=0).fit(wine.data, wine.target), model_name="wine", model_version="1"
)
app = FastAPI()


@app.post("/predict")
def predict(rows: list[dict[str, float]]) -> list[int]:
    frame = wine.data.iloc[:0].reindex(range(len(rows))).assign(**{name: [row[name] for row in rows] for name in wine.feature_names})
    answers: list[int] = model.predict(frame).tolist()
    return answers

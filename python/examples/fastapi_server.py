from fastapi import FastAPI
from pydantic import BaseModel

import predlog
from predlog.asgi import PredictionLogMiddleware

predlog.init(direct={"dir": "predlog-data"})
app = FastAPI()
app.add_middleware(PredictionLogMiddleware, routes={"/predict": "wine"}, model_version="1")


class Wine(BaseModel):
    alcohol: float


@app.post("/predict")
async def predict(wine: Wine) -> dict[str, float]:
    return {"score": 0.5 * wine.alcohol}

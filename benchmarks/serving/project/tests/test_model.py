import numpy as np
import pandas as pd

from model import train


def test_it_learns_which_number_matters():
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"number": random.normal(size=400), "text": ["a", "b"] * 200})
    model = train(frame, (frame["number"] > 0).astype(int), [*frame], [1], {"trees": 20})
    low, high = model.predict_proba(frame.sort_values("number").iloc[[0, -1]])[:, 1]
    assert low < 0.1
    assert high > 0.9

import time
from fixtures.trained import tiny_config
from int_ra_jax.training.loop import train
def test_x(trained, tmp_path):
    print(trained.results)
    t=time.time()
    train(tiny_config(trained.prepared), tmp_path/"a")
    print("SECOND", time.time()-t)

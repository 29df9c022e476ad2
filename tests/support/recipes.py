from data_prep.products.product import toy_product
from data_prep.rendering import ranges
from data_prep.synthetic import Recipe
from data_prep.worlds import rendered
from stormpsr_jax.recordings.procedure import load_procedure

SYNTHETIC = load_procedure("synthetic")


def recipe(procedure=SYNTHETIC, product=None, **options):
    """With two pictures of each state, right and wrong; by default of the toy, of 16 pixels."""
    product = product or toy_product(ranges.streams(0, "product")[0])
    renders = rendered.cad_recordings(procedure, 2, 2, board=True)
    return Recipe(procedure, product, **{"size": 16, "renders": renders} | options)

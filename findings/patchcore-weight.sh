# The weight of PatchCore's image score is 0.89 or 1.00 by the unit of the features, in anomalib 2.7.0.
#
# Equation 7 of the paper (Roth et al. 2022) weights the image score by 1 - softmax(distances)[0] over the b neighbours of the
# nearest row. Distances enter the exponents as they are. If all features are multiplied by ten, which changes no order of
# patches, the weight is another: with b = 9 about 1 - 1/9 where the features are small, and exactly 1 where their root mean
# square is 20. There `num_neighbors` does nothing. Scores of two backbones, or of one backbone and its quantised copy, are
# weighted differently although nothing was set differently.
#
# It matters for whoever compares scores or thresholds between tools: a tool that divides the distances by the square root of
# the dimension, as patchflow does, gives other image scores from the same bank and the same distances.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
# Several GB: anomalib brings PyTorch with its CUDA libraries.
"$folder/venv/bin/pip" install -q --disable-pip-version-check anomalib==2.7.0 "pandas<3"
"$folder/venv/bin/python" -W ignore - <<'P'
import torch
from anomalib.models.image.patchcore.torch_model import PatchcoreModel

torch.manual_seed(1)
model = PatchcoreModel(layers=["layer2", "layer3"], backbone="resnet18", pre_trained=False, num_neighbors=9)


def embed(images):
    features = {layer: model.feature_pooler(map_) for layer, map_ in model.feature_extractor(images).items()}
    return model.reshape_embedding(model.generate_embedding(features))


seen = {}
with torch.no_grad():
    bank = embed(torch.randn(16, 3, 224, 224))
    bank = bank[torch.randperm(len(bank))[:500]]
    queries = embed(torch.randn(4, 3, 224, 224))
    for factor in [0.1, 1, 10, 100]:
        model.memory_bank = bank * factor
        distances, rows = model.nearest_neighbors(embedding=queries * factor, n_neighbors=1)
        distances, rows = distances.reshape(4, -1), rows.reshape(4, -1)
        weights = model.compute_anomaly_score(distances, rows, queries * factor) / distances.amax(1)
        size = float((queries * factor).square().mean().sqrt())
        seen[factor] = [round(float(weights.min()), 3), round(float(weights.max()), 3)]
        print(f"features × {factor}, root mean square {size:.3f}: weights {seen[factor][0]} to {seen[factor][1]}")
assert all(0.885 < weight < 0.895 for weight in seen[0.1]), seen
assert 0.92 < seen[10][0] and seen[10][1] < 0.99, seen
assert seen[100] == [1.0, 1.0], seen
print("as stated")
P

"""InstructMol's computation written anew in PyTorch, from the same files: a molecule's atoms to rows of a prompt, and the logits.

    python tools/oracle/instructmol.py FOLDER [--decoder VICUNA] --smiles 'C[C@H](N)C(=O)O' --prompt '<image>
    What is it?' -o logits.npy [--compare OURS.npy]

FOLDER is what squint-convert takes: a merged checkpoint, or parts (docs/converting.md). Needs PyTorch, transformers, sentencepiece and
RDKit. Sources: IDEA-XL/InstructMol, llava/model/multimodal_encoder/moleculeSTM_gnn_model.py, llava/model/llava_graph_arch.py,
llava/datasets/smiles2graph.py, llava/mm_utils.py.
"""

import argparse
import json
import pathlib

import numpy
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

PLACE = "<image>"


# MARK: Molecules

def graph(smiles):
    """Atoms [atoms, 2], edges [2, edges] and what they are [edges, 2], as InstructMol's dictionaries number them."""
    from rdkit import Chem
    from rdkit.Chem.rdchem import BondDir, BondType, ChiralType

    types = {BondType.SINGLE: 0, BondType.DOUBLE: 1, BondType.TRIPLE: 2, BondType.AROMATIC: 3}
    directions = {BondDir.NONE: 0, BondDir.ENDUPRIGHT: 1, BondDir.ENDDOWNRIGHT: 2}
    chiralities = {
        ChiralType.CHI_UNSPECIFIED: 0, ChiralType.CHI_TETRAHEDRAL_CW: 1, ChiralType.CHI_TETRAHEDRAL_CCW: 2,
        ChiralType.CHI_OTHER: 3,
    }
    molecule = Chem.MolFromSmiles(smiles)
    atoms = [
        [atom.GetAtomicNum() - 1 if atom.GetAtomicNum() else 118, chiralities[atom.GetChiralTag()]]
        for atom in molecule.GetAtoms()
    ]
    edges, kinds = [], []
    for bond in molecule.GetBonds():
        ends = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
        edges += [ends, ends[::-1]]
        kinds += [[types[bond.GetBondType()], directions[bond.GetBondDir()]]] * 2
    return (
        torch.tensor(atoms), torch.tensor(edges, dtype=torch.long).reshape(-1, 2).T,
        torch.tensor(kinds, dtype=torch.long).reshape(-1, 2))


def embeddings(tables, width):
    return nn.ModuleList([nn.Embedding(rows, width) for rows in tables])


def summed(tables, numbers):
    """One table for each column that there is; the others have no use."""
    return sum(tables[column](numbers[:, column]) for column in range(numbers.shape[1]))


class Convolution(nn.Module):
    """GINConv"""

    def __init__(self, width, bonds):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.eps = nn.Parameter(torch.zeros(1))
        self.bond_encoder = nn.Module()
        self.bond_encoder.bond_embedding_list = embeddings(bonds, width)

    def forward(self, x, edges, kinds):
        messages = torch.relu(x[edges[0]] + summed(self.bond_encoder.bond_embedding_list, kinds)) if len(kinds) else None
        received = torch.zeros_like(x)
        if messages is not None:
            received.index_add_(0, edges[1], messages)
        return self.mlp((1 + self.eps) * x + received)


class GNN(nn.Module):
    """MoleculeSTM's graph network in the names of its checkpoint; `tables` are the rows of its tables for atoms and for bonds."""

    def __init__(self, layers, width, tables):
        super().__init__()
        self.atom_encoder = nn.Module()
        self.atom_encoder.atom_embedding_list = embeddings(tables[0], width)
        self.gnns = nn.ModuleList([Convolution(width, tables[1]) for _ in range(layers)])
        self.batch_norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in range(layers)])

    def forward(self, atoms, edges, kinds):
        x = summed(self.atom_encoder.atom_embedding_list, atoms)
        for index, (convolution, norm) in enumerate(zip(self.gnns, self.batch_norms)):
            x = norm(convolution(x, edges, kinds))
            if index + 1 < len(self.gnns):
                x = torch.relu(x)
        return x

    @classmethod
    def of(cls, tensors):
        """The network of the tensors of a checkpoint, without what stands in front of their names."""
        def tables(stem):
            rows = []
            while f"{stem}.{len(rows)}.weight" in tensors:
                rows.append(tensors[f"{stem}.{len(rows)}.weight"].shape[0])
            return rows

        layers = len({name.split(".")[1] for name in tensors if name.startswith("batch_norms.")})
        width = tensors["atom_encoder.atom_embedding_list.0.weight"].shape[1]
        network = cls(
            layers, width,
            (tables("atom_encoder.atom_embedding_list"), tables("gnns.0.bond_encoder.bond_embedding_list")))
        missing, unexpected = network.load_state_dict({name: t.float() for name, t in tensors.items()}, strict=False)
        assert all(name.endswith("num_batches_tracked") for name in missing) and not unexpected, (missing, unexpected)
        return network.eval()


def projector(kind, tensors):
    """build_xmodal_projector"""
    tensors = {name: tensor.float() for name, tensor in tensors.items()}
    if kind == "linear":
        rows, columns = tensors["weight"].shape
        module = nn.Linear(columns, rows)
    else:
        depth = int(kind.removeprefix("mlp").removesuffix("x_gelu"))
        modules = []
        for index in range(depth):
            rows, columns = tensors[f"{2 * index}.weight"].shape
            modules += [nn.Linear(columns, rows), nn.GELU()]
        module = nn.Sequential(*modules[:-1])
    module.load_state_dict(tensors)
    return module


# MARK: Files

def after(marker, tensors):
    """Those whose names have `marker`, by what stands behind it."""
    return {name.split(marker, 1)[1]: tensor for name, tensor in tensors.items() if marker in name}


def read(folder, stem):
    """safetensors, or a pickle, of which tensors alone are read; nothing where there is neither."""
    if (folder / f"{stem}.safetensors").exists():
        return load_file(folder / f"{stem}.safetensors")
    for ending in (".bin", ".pth"):
        if (folder / (stem + ending)).exists():
            return torch.load(folder / (stem + ending), map_location="cpu", weights_only=True)
    return {}


def merge_adapter(decoder, folder):
    """W + alpha / r · B A"""
    settings = json.loads((folder / "adapter_config.json").read_text())
    factors = read(folder, "adapter_model")
    matrices = dict(decoder.named_parameters())
    with torch.no_grad():
        for name, down in factors.items():
            if not name.endswith(".lora_A.weight"):
                continue
            up = factors[name.replace("lora_A", "lora_B")]
            matrix = matrices[name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")]
            matrix += settings["lora_alpha"] / settings["r"] * (up.float() @ down.float())


class Model:
    """Graph network, projector, decoder and tokenizer of a folder."""

    def __init__(self, folder, decoder=None):
        folder = pathlib.Path(folder)
        inner = folder / "adapter"
        trained = folder if (folder / "config.json").exists() else inner
        config = json.loads((trained / "config.json").read_text())
        base = pathlib.Path(decoder) if decoder else folder / "decoder" if (folder / "decoder").exists() else folder
        self.text = Text(base)
        if base == folder:
            tensors = {}
            for path in sorted(folder.glob("model*.safetensors")):
                tensors |= load_file(path)
            self.decoder = llama(config)
            own = {name: t for name, t in tensors.items() if ".graph_tower." not in name and ".mm_projector." not in name}
            self.decoder.load_state_dict({name: tensor.float() for name, tensor in own.items()})
            towers, projection = [tensors], tensors
        else:
            self.decoder = transformers.LlamaForCausalLM.from_pretrained(base, dtype=torch.float32)
            if (trained / "adapter_config.json").exists():
                merge_adapter(self.decoder, trained)
            projection = read(trained, "non_lora_trainables") or read(trained, "mm_projector") or read(folder, "mm_projector")
            # What was trained is loaded last.
            towers = [read(folder, "molecule_model") or read(trained, "molecule_model"), projection]
        self.decoder.eval()
        network = {}
        for tensors in towers:
            network |= after("molecule_node_model.", tensors)
        self.network = GNN.of(network)
        self.projector = projector(config.get("mm_projector_type", "linear"), after("mm_projector.", projection))

    def rows(self, smiles):
        with torch.no_grad():
            return self.projector(self.network(*graph(smiles)))

    def logits(self, prompt, molecules):
        """The ids, −1 where a molecule's row stands, and the logits of every position."""
        rows = [self.rows(smiles) for smiles in molecules]
        parts = prompt.split(PLACE)
        assert len(parts) == len(rows) + 1, "as many places as molecules"
        ids, inputs = [self.text.bos], []
        embedding = self.decoder.get_input_embeddings()
        with torch.no_grad():
            inputs.append(embedding(torch.tensor(ids)))
            for index, part in enumerate(parts):
                tokens = self.text.tokens(part)
                ids += tokens
                inputs.append(embedding(torch.tensor(tokens, dtype=torch.long)))
                if index < len(rows):
                    ids += [-1] * len(rows[index])
                    inputs.append(rows[index])
            return ids, self.decoder(inputs_embeds=torch.cat(inputs)[None], use_cache=False).logits[0]


def llama(config):
    known = {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**known))


class Text:
    """SentencePiece as transformers 4's slow tokenizer of LLaMA uses it: each part for itself; tokens that are special are found
    before."""

    def __init__(self, folder):
        import sentencepiece

        self.pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        self.bos = self.pieces.bos_id()
        self.special = {"<s>": self.bos, "</s>": self.pieces.eos_id(), "<unk>": self.pieces.unk_id()}

    def tokens(self, text):
        first = min(((text.find(word), word) for word in self.special if word in text), default=None)
        if first is None:
            return self.pieces.encode(text) if text else []
        place, word = first
        return self.tokens(text[:place]) + [self.special[word]] + self.tokens(text[place + len(word):])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--decoder")
    parser.add_argument("--smiles", action="append", default=[])
    parser.add_argument("--prompt", required=True)
    parser.add_argument("-o", "--output")
    parser.add_argument("--compare", help="logits of squint logits")
    arguments = parser.parse_args()
    ids, logits = Model(arguments.folder, arguments.decoder).logits(arguments.prompt, arguments.smiles)
    print(len(ids), "positions")
    if arguments.output:
        numpy.save(arguments.output, logits.numpy().astype("<f4"))
    if arguments.compare:
        ours = numpy.load(arguments.compare)
        assert ours.shape == tuple(logits.shape), (ours.shape, tuple(logits.shape))
        print(f"largest difference {numpy.abs(ours - logits.numpy()).max():.2e}")


if __name__ == "__main__":
    main()

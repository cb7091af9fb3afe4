"""Compares the graphs of molecules with RDKit's, on all that RDKit's package has and on spellings that its writer gives.

In an environment with PyPI rdkit 2026.9.1, after `swift build -c release --product MoleculeProbe`:

    python tools/oracle/molecules.py                     all of what follows but wildcards and mutations
    python tools/oracle/molecules.py package             the SMILES that stand in RDKit's package (data, contributions, code)
    python tools/oracle/molecules.py spellings           eight spellings of each: random walks, Kekulé, explicit bonds, explicit hydrogens
    python tools/oracle/molecules.py isomers             stereoisomers that RDKit enumerates, and their spellings
    python tools/oracle/molecules.py marks               spellings with @ and / set at random, most of which mean nothing
    python tools/oracle/molecules.py drawings            MOL files: 2D, 3D, V2000, V3000, with hydrogens and without
    python tools/oracle/molecules.py wildcards           rings with *: all of up to five atoms, others at random; as MOL files 1 % differ
    python tools/oracle/molecules.py files FILE…         SMILES, one a line, from files, with their spellings; MOL and SDF files
    python tools/oracle/molecules.py mutations COUNT     changes them at random, in the probe alone: nothing may crash

Options: --probe PATH (default: .build/release/MoleculeProbe), --seed N, --limit N molecules. Exits with 1 where any graph differs.
"""

import argparse
import itertools
import math
import pathlib
import random
import re
import subprocess
import sys

import rdkit
from rdkit import Chem, RDLogger
from rdkit.Chem import AllChem
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions
from rdkit.Chem.rdchem import BondDir, BondType, ChiralType

ROOT = pathlib.Path(__file__).resolve().parents[2]
# InstructMol's dictionaries (llava/datasets/smiles2graph.py).
TYPES = {BondType.SINGLE: 0, BondType.DOUBLE: 1, BondType.TRIPLE: 2, BondType.AROMATIC: 3}
DIRECTIONS = {BondDir.NONE: 0, BondDir.ENDUPRIGHT: 1, BondDir.ENDDOWNRIGHT: 2}
CHIRALITIES = {
    ChiralType.CHI_UNSPECIFIED: 0, ChiralType.CHI_TETRAHEDRAL_CW: 1, ChiralType.CHI_TETRAHEDRAL_CCW: 2, ChiralType.CHI_OTHER: 3}
MARK = re.compile(r"[@/\\]")
TOKEN = re.compile(r"^[A-Za-z0-9@+\-\[\]()=#$:/\\%.*~<>]+$")


def numbers(molecule):
    """(atoms, bonds) as the published code numbers them; None where it fails."""
    if molecule is None or molecule.GetNumAtoms() == 0:
        return None
    try:
        atoms = [
            ((a.GetAtomicNum() - 1) if a.GetAtomicNum() else 118, CHIRALITIES[a.GetChiralTag()]) for a in molecule.GetAtoms()]
        bonds = [
            (b.GetBeginAtomIdx(), b.GetEndAtomIdx(), TYPES[b.GetBondType()], DIRECTIONS[b.GetBondDir()])
            for b in molecule.GetBonds()]
    except KeyError:
        return None
    return atoms, bonds


def line(graph):
    if graph is None:
        return "!"
    atoms, bonds = graph
    return " ".join([f"{e} {c}" for e, c in atoms] + ["|"] + [f"{s} {t} {k} {d} {t} {s} {k} {d}" for s, t, k, d in bonds])


def expected(text, read):
    try:
        return line(numbers(read(text)))
    except Exception:
        return "!"


class Comparison:
    def __init__(self, probe):
        self.probe = probe
        self.failures = 0

    def run(self, name, texts, read=Chem.MolFromSmiles):
        texts = [t for t in texts if "\x01" not in t and "\r" not in t]
        lines = "".join(t.replace("\n", "\x01") + "\n" for t in texts)
        done = subprocess.run([self.probe], input=lines.encode(), capture_output=True)
        answers = done.stdout.decode().splitlines()
        if done.returncode or len(answers) != len(texts):
            sys.exit(f"{name}: the probe ended with {done.returncode} after {len(answers)} of {len(texts)}")
        valid = marked = differ = 0
        for text, answer in zip(texts, answers):
            want = expected(text, read)
            valid += want != "!"
            marked += want != "!" and bool(MARK.search(text))
            if (answer[0] if answer[0] == "!" else answer) != want:
                differ += 1
                if differ <= 20:
                    print(f"  differs: {text[:200]!r}\n    RDKit {want[:300]}\n    here  {answer[:300]}")
        print(f"{name}: {len(texts):,} texts, {valid:,} molecules of RDKit, {marked:,} with marks of stereo, {differ} differ", flush=True)
        self.failures += differ


def package_smiles():
    """The SMILES of three atoms and more that stand anywhere in RDKit's package."""
    found = set()
    folder = pathlib.Path(rdkit.__file__).parent
    for path in sorted(folder.rglob("*")):
        kind = path.suffix[1:]
        if not path.is_file() or path.stat().st_size > 8_000_000:
            continue
        if kind == "sdf":
            found.update(Chem.MolToSmiles(m) for m in Chem.SDMolSupplier(str(path)) if m)
        elif kind in ("smi", "csv", "txt", "py", "smarts", "in", "dat", "sql", "fdef"):
            for token in re.split(r"[\s,;'\"|]+", path.read_text(errors="ignore")):
                if kind == "py" and not re.search(r"[=()\[\]1@/]", token):
                    continue
                if 2 < len(token) < 500 and TOKEN.match(token):
                    molecule = Chem.MolFromSmiles(token)
                    if molecule is not None and molecule.GetNumAtoms() > 2:
                        found.add(token)
    return sorted(found)


def spellings(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return
    plain = Chem.Mol(molecule)
    kekule = Chem.Mol(molecule)
    try:
        Chem.Kekulize(kekule, clearAromaticFlags=True)
    except Exception:
        kekule = None
    for source, options in [
        (plain, {}), (plain, dict(doRandom=True, canonical=False)), (plain, dict(doRandom=True, canonical=False, allHsExplicit=True)),
        (plain, dict(doRandom=True, canonical=False, allBondsExplicit=True)),
        (plain, dict(doRandom=True, canonical=False, isomericSmiles=False)),
        (kekule, dict(doRandom=True, canonical=False, kekuleSmiles=True)),
        (kekule, dict(doRandom=True, canonical=False, allBondsExplicit=True, allHsExplicit=True)),
        (Chem.AddHs(molecule), dict(doRandom=True, canonical=False)),
    ]:
        if source is not None:
            try:
                yield Chem.MolToSmiles(source, **options)
            except Exception:
                pass


def isomers(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or molecule.GetNumAtoms() > 60:
        return
    options = StereoEnumerationOptions(maxIsomers=4, onlyUnassigned=False, rand=1)
    try:
        for isomer in EnumerateStereoisomers(molecule, options=options):
            yield Chem.MolToSmiles(isomer)
            yield Chem.MolToSmiles(isomer, doRandom=True, canonical=False)
    except Exception:
        return


ATOM = re.compile(r"\[\d*[A-Z][a-z]?(?=[H\]+\-:])")


def marks(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    text = Chem.MolToSmiles(
        molecule, doRandom=True, canonical=False, allHsExplicit=True, allBondsExplicit=random.random() < 0.3)
    share = random.choice([0.1, 0.3, 0.7, 1])
    text = ATOM.sub(lambda m: m.group(0) + (random.choice(["@", "@@"]) if random.random() < share else ""), text)
    share = random.choice([0, 0.1, 0.4, 0.8])
    return re.sub(
        r"(?<=[\]\d)(])(-?)(?=\[)", lambda m: random.choice("/\\") if random.random() < share else m.group(1), text)


def drawing(smiles):
    molecule = Chem.MolFromSmiles(smiles)
    if molecule is None or not 2 <= molecule.GetNumAtoms() <= 120:
        return None
    try:
        inSpace = molecule.GetNumAtoms() < 30 and random.random() < 0.1
        if inSpace or random.random() < 0.2:
            molecule = Chem.AddHs(molecule)
        if inSpace:
            if AllChem.EmbedMolecule(molecule, randomSeed=1, maxAttempts=1) < 0:
                return None
            if random.random() < 0.3:
                molecule = Chem.RemoveHs(molecule)
        else:
            AllChem.Compute2DCoords(molecule)
        return Chem.MolToMolBlock(molecule, kekulize=random.random() < 0.8, forceV3000=random.random() < 0.3)
    except Exception:
        return None


RING_ATOMS = ["c", "n", "o", "s", "N", "O", "*", "C", "=C"]


def ring(atoms):
    """The SMILES of one ring of these atoms; the bond that closes it is double where the first asks for that."""
    first = atoms[0].removeprefix("=")
    return first + ("=1" if atoms[0] != first else "1") + "".join(atoms[1:]) + "1"


def wildcard_rings():
    """Rings of 4 to 7 atoms with a * and an aromatic atom: all of 4 and 5, of 6 and 7 as many at random."""
    for size in range(4, 8):
        chosen = (
            itertools.product(RING_ATOMS, repeat=size)
            if size < 6
            else (random.choices(RING_ATOMS, weights=[6, 2, 1, 1, 1, 1, 3, 1, 1], k=size) for _ in range(60000)))
        for atoms in chosen:
            if "*" in atoms and any(atom.islower() for atom in atoms):
                yield ring(atoms)


def wildcard_systems(count):
    """Two and three rings that share bonds, with one to three *."""
    frames = [
        "{}1{}{}2{}{}{}{}2{}1", "{}1{}{}2{}{}{}{}{}2{}{}1", "{}1{}{}{}2{}{}{}2{}1", "{}1{}{}2{}{}{}2{}1", "{}1{}{}{}2{}1{}{}{}{}2",
        "{}12{}{}{}{}{}1{}{}{}2", "{}1{}{}2{}({}1){}{}{}2", "{}1{}{}2{}{}{}3{}{}{}{}{}3{}2{}1", "{}1{}{}2{}{}3{}{}{}{}{}3{}{}2{}1",
        "{}1{}{}2{}{}{}3{}{}{}1{}23"]
    for _ in range(count):
        frame = random.choice(frames)
        size = frame.count("{}")
        atoms = random.choices(["c", "n", "[nH]", "o", "s", "N", "C", "C(=O)"], weights=[14, 2, 2, 1, 1, 1, 1, 1], k=size)
        for place in random.sample(range(size), random.choice([1, 1, 2, 2, 3])):
            atoms[place] = "*"
        # What stands before a number is an atom alone.
        yield re.sub(r"\(=O\)(?=[0-9])", "", frame.format(*atoms))


def wildcard_block(smiles):
    """A MOL file of the atoms as they stand in `smiles`, with R, A, Q and others for *, and bonds of type 4 between them and aromatic ones."""
    molecule = Chem.MolFromSmiles(smiles, sanitize=False)
    if molecule is None:
        return None
    rings = Chem.GetSymmSSSR(molecule)
    inRing = {frozenset((r[i - 1], r[i])) for r in rings for i in range(len(r))}
    letters = random.choice(["R", "A", "Q", "*", "X", "M", "R#", "R1"])
    share = random.choice([0, 0.5, 1])
    count = molecule.GetNumAtoms()
    lines = ["", "  wildcards", "", f"{count:3d}{molecule.GetNumBonds():3d}  0  0  0  0            999 V2000"]
    for atom in molecule.GetAtoms():
        index = atom.GetIdx()
        symbol = letters if atom.GetAtomicNum() == 0 else atom.GetSymbol()
        angle = 2 * math.pi * index / count
        lines.append(f"{2 * math.cos(angle):10.4f}{2 * math.sin(angle):10.4f}{0:10.4f} {symbol:<3} 0  0  0  0  0  0  0  0  0  0  0  0")
    for bond in molecule.GetBonds():
        ends = [bond.GetBeginAtom(), bond.GetEndAtom()]
        isWild = all(a.GetAtomicNum() == 0 or a.GetIsAromatic() for a in ends)
        isAromatic = bond.GetIsAromatic() or isWild and random.random() < share
        isAromatic = isAromatic and frozenset(a.GetIdx() for a in ends) in inRing
        kind = 4 if isAromatic else {BondType.DOUBLE: 2, BondType.TRIPLE: 3}.get(bond.GetBondType(), 1)
        lines.append(f"{ends[0].GetIdx() + 1:3d}{ends[1].GetIdx() + 1:3d}{kind:3d}  0")
    wild = [a.GetIdx() + 1 for a in molecule.GetAtoms() if a.GetAtomicNum() == 0]
    if letters == "R#":
        lines.append(f"M  RGP{len(wild):3d}" + "".join(f"{a:4d}{i + 1:4d}" for i, a in enumerate(wild)))
    return "\n".join(lines + ["M  END", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*")
    parser.add_argument("--probe", default=str(ROOT / ".build" / "release" / "MoleculeProbe"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--limit", type=int, default=1 << 30)
    arguments = parser.parse_args()
    RDLogger.DisableLog("rdApp.*")
    random.seed(arguments.seed)
    what = arguments.what or ["package", "spellings", "isomers", "marks", "drawings"]
    comparison = Comparison(arguments.probe)
    if what[0] == "files":
        for name in what[1:]:
            if name.endswith((".sdf", ".mol")):
                blocks = pathlib.Path(name).read_text(errors="ignore").replace("\r", "").split("$$$$\n")
                comparison.run(name, [b for b in blocks if b.strip()], Chem.MolFromMolBlock)
            else:
                own = [l.split()[0] for l in open(name, errors="ignore") if l.strip()][: arguments.limit]
                comparison.run(name, own)
                comparison.run(f"{name}, spellings", [s for smiles in own for s in spellings(smiles)])
        sys.exit(comparison.failures > 0)
    smiles = package_smiles() if what != ["wildcards"] else []
    random.shuffle(smiles)
    smiles = smiles[: arguments.limit]
    marked = [s for s in smiles if MARK.search(s)]
    if what[0] == "mutations":
        wild = smiles + [marks(s) for s in smiles]
        done = subprocess.run(
            [arguments.probe, "--mutate", str(arguments.seed), what[1]], input="".join(s + "\n" for s in wild).encode(), capture_output=True)
        print(done.stdout.decode().strip())
        sys.exit(done.returncode)
    if "package" in what:
        comparison.run("package", smiles)
    if "spellings" in what:
        comparison.run("spellings", [t for s in smiles for t in spellings(s)])
    if "isomers" in what:
        comparison.run("isomers", list(dict.fromkeys(t for s in smiles for t in isomers(s))))
    if "marks" in what:
        comparison.run("marks", [marks(s) for s in smiles])
    if "drawings" in what:
        texts = [drawing(s) for s in marked + smiles[:6000]]
        comparison.run("drawings", [t for t in texts if t], Chem.MolFromMolBlock)
    if "wildcards" in what:
        rings = list(dict.fromkeys(wildcard_rings()))
        systems = list(dict.fromkeys(wildcard_systems(100000)))
        comparison.run("wildcards in rings", rings)
        comparison.run("wildcards in systems of rings", systems)
        blocks = [wildcard_block(s) for s in random.sample(rings, 30000) + random.sample(systems, 30000)]
        comparison.run("wildcards in MOL files", [b for b in blocks if b], Chem.MolFromMolBlock)
    sys.exit(comparison.failures > 0)


if __name__ == "__main__":
    main()

import Foundation
import SquintFile
import SquintMedia

/// Reads molecules, one a line, and writes the graph of each, for tools/oracle/molecules.py.
///
/// A line is SMILES, or a MOL file whose line ends are written as U+0001. What is written is `element chirality` of each atom, `|`,
/// and `source target type direction` of each edge; `! message` where the molecule is refused. With `--mutate SEED COUNT` each line
/// is changed at random that often instead, and the number of graphs and refusals is written at the end.
@main struct MoleculeProbe {
  static func main() {
    let arguments = CommandLine.arguments.dropFirst()
    if arguments.first == "--mutate", arguments.count == 3, let seed = UInt64(arguments[arguments.startIndex + 1]),
      let count = Int(arguments[arguments.startIndex + 2])
    {
      mutate(seed: seed, count: count)
    } else {
      while let line = readLine() { print(answer(Array(line.utf8))) }
    }
  }

  private static func answer(_ line: [UInt8]) -> String {
    do throws(SquintError) {
      let graph = try MoleculeProcessor.graph(of: line.map { $0 == 1 ? UInt8(ascii: "\n") : $0 })
      let atoms = graph.atoms.map { "\($0.element) \($0.chirality)" }
      let edges = graph.edges.map { "\($0.source) \($0.target) \($0.type) \($0.direction)" }
      return (atoms + ["|"] + edges).joined(separator: " ")
    } catch {
      return "! \(error.message)"
    }
  }

  private static func mutate(seed: UInt64, count: Int) {
    var random = SplitMix(state: seed)
    var (graphs, refusals, slowest, slowestLine) = (0, 0, 0.0, "")
    var seen: [[UInt8]] = []
    while let line = readLine() { seen.append(line.utf8.map { $0 == 1 ? UInt8(ascii: "\n") : $0 }) }
    guard !seen.isEmpty else { return }
    for index in 0..<count {
      let bytes = random.changed(seen[index % seen.count], other: seen[random.below(seen.count)])
      let start = Date()
      do throws(SquintError) {
        let graph = try MoleculeProcessor.graph(of: bytes)
        let atoms = Int32(graph.atoms.count)
        for edge in graph.edges {
          precondition((0..<atoms).contains(edge.source) && (0..<atoms).contains(edge.target))
          precondition((0...3).contains(edge.type) && (0...2).contains(edge.direction))
        }
        for atom in graph.atoms { precondition((0...118).contains(atom.element) && (0...2).contains(atom.chirality)) }
        graphs += 1
      } catch {
        precondition(!error.message.isEmpty && !error.message.contains("\n"))
        refusals += 1
      }
      let seconds = -start.timeIntervalSinceNow
      if seconds > slowest { (slowest, slowestLine) = (seconds, String(decoding: bytes.prefix(200), as: UTF8.self)) }
    }
    print("\(count) mutations: \(graphs) graphs, \(refusals) refusals; the slowest took \(slowest) s: \(slowestLine)")
  }
}

/// Random numbers that a seed fixes (SplitMix64).
private struct SplitMix {
  var state: UInt64

  mutating func below(_ bound: Int) -> Int {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return Int((z ^ (z >> 31)) % UInt64(bound))
  }

  /// `bytes` with one to four of its characters changed, moved, doubled or replaced by a piece of `other`.
  mutating func changed(_ bytes: [UInt8], other: [UInt8]) -> [UInt8] {
    let alphabet = Array("CNOPSFIBHclnosbp[]()=#$:@/\\123456789%0.+-*~<> |seaT".utf8)
    var bytes = bytes
    for _ in 0...below(4) {
      let place = below(bytes.count + 1)
      switch below(7) {
      case 0 where place < bytes.count: bytes.remove(at: place)
      case 1 where place < bytes.count: bytes[place] = alphabet[below(alphabet.count)]
      case 2 where place < bytes.count: bytes[place] = UInt8(below(256))
      case 3 where place < bytes.count: bytes.swapAt(place, below(bytes.count))
      case 4 where !other.isEmpty:
        let start = below(other.count)
        bytes.insert(contentsOf: other[start..<min(other.count, start + 1 + below(20))], at: place)
      case 5 where place < bytes.count:
        bytes.insert(contentsOf: bytes[place..<min(bytes.count, place + 1 + below(20))], at: place)
      default: bytes.insert(alphabet[below(alphabet.count)], at: place)
      }
    }
    return bytes
  }
}

import CSquintNano
import Squint
import SquintFile

/// The model that is part of this program.
enum BuiltInModel {
  /// What messages call it, and a MODEL that means it.
  static let name = "squint-nano"

  /// Opens it as any other model: a part of the program's file, mapped and read like a file of its own.
  ///
  /// - Throws: `noInput` where the program cannot read its own file, `badData` where that is damaged.
  static func open(memory: MemoryLimit) throws(SquintError) -> ModelFile {
    let offset = Int(squint_nano_offset())
    guard offset >= 0 else {
      throw SquintError(.noInput, "\(name): this system does not say where it is in the program; give a MODEL")
    }
    let range = offset..<offset + Int(squint_nano_size())
    do {
      return try ModelFile(path: "/proc/self/exe", range: range, name: name, memory: memory)
    } catch {
      guard error.kind == .noInput else { throw error }
      // Without /proc, the path by which the kernel started this program; a file that took its place since has no model there.
      if let path = programPath, let file = try? ModelFile(path: path, range: range, name: name, memory: memory) {
        return file
      }
      throw SquintError(error.kind, "\(error.problem): it is in this program, read by /proc/self/exe; give a MODEL")
    }
  }
}

extension ModelFile {
  /// Opens the model that `argument` names: a file, or the built-in model, as without one.
  ///
  /// - Parameter memory: what the process may hold meanwhile; nil: what is free.
  static func open(_ argument: String?, memory: ByteSize? = nil) throws(SquintError) -> ModelFile {
    let memory = MemoryLimit(memory: memory?.bytes)
    guard let argument, argument != BuiltInModel.name else { return try BuiltInModel.open(memory: memory) }
    return try ModelFile(path: argument, memory: memory)
  }
}

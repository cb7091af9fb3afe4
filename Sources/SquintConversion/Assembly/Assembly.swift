import SquintFile

/// Fills a model file from a plan: any number of threads make chunks, and whoever finishes the next one in file order
/// writes all that are ready.
///
/// A thread does not start a chunk that is more than a window ahead of what is written, which bounds the memory.
final class Assembly: @unchecked Sendable {
  private let tensors: [PlannedTensor]
  private let chunks: [TensorEncoder.Chunk]
  private let encoder = TensorEncoder()
  private let writer: ModelFileWriter
  private let options: ConversionOptions
  private let progress: (ConversionProgress) -> Void
  private let totalBytes: Int
  private let jobs: Int
  private let window: Int
  private let start = nanoseconds()

  // Guarded by the monitor.
  private let monitor = Monitor()
  private var nextChunk = 0
  private var writtenChunks = 0
  private var ready: [Int: TensorEncoder.Output] = [:]
  private var isWriting = false
  private var failure: SquintError?

  // Touched only by the thread that writes, one at a time.
  private var writtenBytes = 0
  private(set) var errors: [ElementType: ErrorSums] = [:]
  private(set) var timings = ConversionReport.Timings()

  init(
    tensors: [PlannedTensor], writer: ModelFileWriter, options: ConversionOptions,
    progress: @escaping (ConversionProgress) -> Void
  ) {
    self.tensors = tensors
    self.writer = writer
    self.options = options
    self.progress = progress
    chunks = tensors.enumerated().flatMap { TensorEncoder.chunks(of: $1, index: $0) }
    totalBytes = writer.byteCount
    let processors = usableProcessors()
    jobs = max(1, min(options.jobs ?? processors, processors, Self.mostJobs))
    window = 2 * jobs
  }

  /// Beyond this, and beyond the processors, more threads would only take more memory.
  private static let mostJobs = 64
  /// The stack of each thread, in bytes: chunks are on the heap.
  private static let stackBytes = 1 << 20

  deinit {
    for output in ready.values { output.bytes.deallocate() }
  }

  /// Makes and writes all tensors.
  func run() throws(SquintError) {
    var threads = ThreadGroup()
    // Where the system gives no more threads (ulimit -u), those that there are do it: this one always.
    while threads.count < jobs - 1, (try? threads.start(stackBytes: Self.stackBytes) { self.work() }) != nil {}
    timings.threads = threads.count + 1
    work()
    threads.join()
    if let failure { throw failure }
    timings.seconds = Double(nanoseconds() - start) / 1e9
  }

  private func work() {
    monitor.lock()
    defer { monitor.unlock() }
    while true {
      while failure == nil && nextChunk < chunks.count && nextChunk >= writtenChunks + window {
        monitor.wait()
      }
      guard failure == nil, nextChunk < chunks.count else { return }
      let index = nextChunk
      nextChunk += 1
      monitor.unlock()
      let chunk = chunks[index]
      let result = Result { () throws(SquintError) in
        guard !options.isCancelled() else { throw SquintError(.inputOutput, "the conversion was cancelled") }
        return try encoder.encode(tensors[chunk.tensor], rows: chunk.rows)
      }
      monitor.lock()
      switch result {
      case .success(let output): ready[index] = output
      case .failure(let error): fail(error)
      }
      writeReady()
    }
  }

  /// Writes what is ready in order. The monitor is held on entry and on return, not during the writing.
  private func writeReady() {
    guard !isWriting else { return }
    isWriting = true
    while failure == nil, let output = ready.removeValue(forKey: writtenChunks) {
      let tensor = chunks[writtenChunks].tensor
      monitor.unlock()
      let began = nanoseconds()
      let result = Result { () throws(SquintError) in
        try writer.append(UnsafeRawBufferPointer(output.bytes), toTensor: tensor)
      }
      writtenBytes += output.bytes.count
      output.bytes.deallocate()
      timings.writing += Double(nanoseconds() - began) / 1e9
      timings.reading += Double(output.readingNanoseconds) / 1e9
      timings.quantizing += Double(output.quantizingNanoseconds) / 1e9
      errors[tensors[tensor].type, default: ErrorSums()] += output.error
      progress(ConversionProgress(writtenBytes: writtenBytes, totalBytes: totalBytes))
      monitor.lock()
      if case .failure(let error) = result { fail(error) }
      writtenChunks += 1
      monitor.wakeAll()
    }
    isWriting = false
  }

  /// Keeps the first error and lets all threads end. The monitor is held.
  private func fail(_ error: SquintError) {
    failure = failure ?? error
    monitor.wakeAll()
  }
}

import SquintCompute
import SquintFile

/// Where a patch is, in patches.
package struct PatchPlace: BitwiseCopyable, Sendable {
  package var row: Int32
  package var column: Int32
}

/// Frames of one image as they come, RGB: [frames, height, width, 3], and what each level of each channel means, [3, 256].
struct PixelFrames {
  let pixels: UnsafePointer<UInt8>
  let frames: Int
  let height: Int
  let width: Int
  let levels: UnsafePointer<Float>
}

extension Compute {
  /// patches[patch, channel · frame · row · column] = the pixels of `count` patches from patch `first` on: what a convolution whose
  /// stride is its size multiplies with its weights.
  ///
  /// - Parameters:
  ///   - columns: of the grid of patches.
  ///   - places: of all patches; nil: they come row after row.
  func gatherPatches(
    _ image: PixelFrames, side: Int, columns: Int, places: UnsafePointer<PatchPlace>? = nil, first: Int, count: Int,
    into patches: Rows
  ) {
    struct Job {
      let image: PixelFrames
      let side: Int
      let columns: Int
      let places: UnsafePointer<PatchPlace>?
      let first: Int
      let patches: Rows

      func run(_ row: Int) {
        let patch = first + row
        let place = places?[patch] ?? PatchPlace(row: Int32(patch / columns), column: Int32(patch % columns))
        let (top, left) = (Int(place.row) * side, Int(place.column) * side)
        let output = patches[row]
        for frame in 0..<image.frames {
          let pixels = image.pixels + frame * image.height * image.width * 3
          for y in 0..<side {
            let line = pixels + 3 * ((top + y) * image.width + left)
            for channel in 0..<3 {
              let levels = image.levels + 256 * channel
              let to = output + ((channel * image.frames + frame) * side + y) * side
              for x in 0..<side { to[x] = levels[Int(line[3 * x + channel])] }
            }
          }
        }
      }
    }
    var job = Job(image: image, side: side, columns: columns, places: places, first: first, patches: patches)
    workers.run(&job, pieces: count) { job, row, _ in job.assumingMemoryBound(to: Job.self).pointee.run(row) }
  }
}

export {
  type CodeImageData,
  type CodeImagesData,
  createCodeImages,
} from './testing/code-images.js';
export { createSafePoint } from './testing/safe-point.js';
export { createThreadStates, type ThreadStatesData } from './testing/thread-states.js';

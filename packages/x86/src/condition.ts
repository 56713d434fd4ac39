import { Flag } from './arithmetic.js';

const { CF, PF, ZF, SF, OF } = Flag;

/** Whether a condition holds (SDM vol. 2, appendix B.1.4). */
export function conditionHolds(condition: number, rflags: number): boolean {
  const less = ((rflags & SF) !== 0) !== ((rflags & OF) !== 0);
  let holds: boolean;
  switch (condition >> 1) {
    case 0:
      holds = (rflags & OF) !== 0;
      break;
    case 1:
      holds = (rflags & CF) !== 0;
      break;
    case 2:
      holds = (rflags & ZF) !== 0;
      break;
    case 3:
      holds = (rflags & (CF | ZF)) !== 0;
      break;
    case 4:
      holds = (rflags & SF) !== 0;
      break;
    case 5:
      holds = (rflags & PF) !== 0;
      break;
    case 6:
      holds = less;
      break;
    default:
      holds = less || (rflags & ZF) !== 0;
  }
  return holds !== ((condition & 1) !== 0);
}

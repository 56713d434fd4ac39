import type { ProfileField, ProfileStruct } from './profile-data.js';

/*
 * KDDEBUGGER_DATA64, the block at `KdDebuggerDataBlock` by which debuggers and memory forensics find their way. Symbol
 * files do not describe it; the public header wdbgexts.h of the Windows SDK does. Here are its fields in order, grouped by
 * size; offsets follow from natural alignment. Fields behind EtwpDebuggerData exist but are not needed.
 */
const FIELDS: readonly (readonly [size: number, names: string])[] = [
  [8, 'Flink Blink'],
  [4, 'OwnerTag Size'],
  [8, 'KernBase BreakpointWithStatus SavedContext'],
  [2, 'ThCallbackStack NextCallback FramePointer PaeEnabled'],
  [8, 'KiCallUserMode KeUserCallbackDispatcher PsLoadedModuleList PsActiveProcessHead PspCidTable'],
  [8, 'ExpSystemResourcesList ExpPagedPoolDescriptor ExpNumberOfPagedPools KeTimeIncrement KeBugCheckCallbackListHead'],
  [8, 'KiBugcheckData IopErrorLogListHead ObpRootDirectoryObject ObpTypeObjectType'],
  [8, 'MmSystemCacheStart MmSystemCacheEnd MmSystemCacheWs MmPfnDatabase MmSystemPtesStart MmSystemPtesEnd'],
  [8, 'MmSubsectionBase MmNumberOfPagingFiles MmLowestPhysicalPage MmHighestPhysicalPage MmNumberOfPhysicalPages'],
  [8, 'MmMaximumNonPagedPoolInBytes MmNonPagedSystemStart MmNonPagedPoolStart MmNonPagedPoolEnd'],
  [8, 'MmPagedPoolStart MmPagedPoolEnd MmPagedPoolInformation MmPageSize MmSizeOfPagedPoolInBytes MmTotalCommitLimit'],
  [8, 'MmTotalCommittedPages MmSharedCommit MmDriverCommit MmProcessCommit MmPagedPoolCommit MmExtendedCommit'],
  [8, 'MmZeroedPageListHead MmFreePageListHead MmStandbyPageListHead MmModifiedPageListHead'],
  [8, 'MmModifiedNoWritePageListHead MmAvailablePages MmResidentAvailablePages PoolTrackTable NonPagedPoolDescriptor'],
  [8, 'MmHighestUserAddress MmSystemRangeStart MmUserProbeAddress KdPrintCircularBuffer KdPrintCircularBufferEnd'],
  [8, 'KdPrintWritePointer KdPrintRolloverCount MmLoadedUserImageList NtBuildLab KiNormalSystemCall KiProcessorBlock'],
  [8, 'MmUnloadedDrivers MmLastUnloadedDriver MmTriageActionTaken MmSpecialPoolTag KernelVerifier MmVerifierData'],
  [8, 'MmAllocatedNonPagedPool MmPeakCommitment MmTotalCommitLimitMaximum CmNtCSDVersion MmPhysicalMemoryBlock'],
  [8, 'MmSessionBase MmSessionSize MmSystemParentTablePage MmVirtualTranslationBase'],
  [2, 'OffsetKThreadNextProcessor OffsetKThreadTeb OffsetKThreadKernelStack OffsetKThreadInitialStack'],
  [2, 'OffsetKThreadApcProcess OffsetKThreadState OffsetKThreadBStore OffsetKThreadBStoreLimit'],
  [2, 'SizeEProcess OffsetEprocessPeb OffsetEprocessParentCID OffsetEprocessDirectoryTableBase'],
  [2, 'SizePrcb OffsetPrcbDpcRoutine OffsetPrcbCurrentThread OffsetPrcbMhz OffsetPrcbCpuType OffsetPrcbVendorString'],
  [2, 'OffsetPrcbProcStateContext OffsetPrcbNumber SizeEThread'],
  [1, 'L1tfHighPhysicalBitIndex L1tfSwizzleBitIndex'],
  [4, 'Padding0'],
  [8, 'KdPrintCircularBufferPtr KdPrintBufferSize KeLoaderBlock'],
  [2, 'SizePcr OffsetPcrSelfPcr OffsetPcrCurrentPrcb OffsetPcrContainedPrcb OffsetPcrInitialBStore'],
  [2, 'OffsetPcrBStoreLimit OffsetPcrInitialStack OffsetPcrStackLimit OffsetPrcbPcrPage OffsetPrcbProcStateSpecialReg'],
  [2, 'GdtR0Code GdtR0Data GdtR0Pcr GdtR3Code GdtR3Data GdtR3Teb GdtLdt GdtTss Gdt64R3CmCode Gdt64R3CmTeb'],
  [8, 'IopNumTriageDumpDataBlocks IopTriageDumpDataBlocks VfCrashDataBlock MmBadPagesDetected'],
  [8, 'MmZeroedPageSingleBitErrorsDetected EtwpDebuggerData'],
];

/** Layout of KDDEBUGGER_DATA64 up to `EtwpDebuggerData`; profiles hold it under the name `_KDDEBUGGER_DATA64`. */
export const debuggerDataStruct: ProfileStruct = layOut();

function layOut(): ProfileStruct {
  const fields: Record<string, ProfileField> = {};
  let at = 0;
  for (const [size, names] of FIELDS) {
    for (const name of names.split(' ')) {
      at = Math.ceil(at / size) * size;
      fields[name] = { offset: at, size };
      at += size;
    }
  }
  return { size: at, fields };
}

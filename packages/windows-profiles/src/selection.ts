import type { ProfileSelection } from './isf.js';

/** Structures that introspection, the lab guest or a forensic tool reads; what they embed comes along. */
const STRUCTS = [
  '_EPROCESS _KPROCESS _ETHREAD _KTHREAD _EWOW64PROCESS _SE_AUDIT_PROCESS_CREATION_INFO _MMSUPPORT_FULL',
  '_KPCR _KPRCB _KTSS64 _KIDTENTRY64 _KGDTENTRY64 _KDESCRIPTOR _KINTERRUPT _KNODE _KAFFINITY_EX',
  '_KPROCESSOR_STATE _KSPECIAL_REGISTERS _KTRAP_FRAME _KEXCEPTION_FRAME _CONTEXT _EXCEPTION_RECORD _M128A',
  '_PEB _PEB_LDR_DATA _LDR_DATA_TABLE_ENTRY _KLDR_DATA_TABLE_ENTRY _RTL_USER_PROCESS_PARAMETERS _CURDIR _TEB _NT_TIB',
  '_UNICODE_STRING _STRING _LIST_ENTRY _LARGE_INTEGER _CLIENT_ID _EX_FAST_REF _KSYSTEM_TIME _KUSER_SHARED_DATA',
  '_DISPATCHER_HEADER _KTIMER _KAPC _KAPC_STATE _KWAIT_BLOCK _DBGKD_GET_VERSION64',
  '_TOKEN _SEP_TOKEN_PRIVILEGES _SID _SID_AND_ATTRIBUTES _SECURITY_DESCRIPTOR _ACL',
  '_HANDLE_TABLE _HANDLE_TABLE_ENTRY _OBJECT_HEADER _OBJECT_HEADER_NAME_INFO _OBJECT_HEADER_CREATOR_INFO',
  '_OBJECT_NAME_INFORMATION _OBJECT_TYPE _OBJECT_DIRECTORY _OBJECT_DIRECTORY_ENTRY _OBJECT_SYMBOLIC_LINK',
  '_DRIVER_OBJECT _DEVICE_OBJECT _FILE_OBJECT _POOL_HEADER _POOL_TRACKER_BIG_PAGES _PHYSICAL_MEMORY_DESCRIPTOR',
  '_MMPTE _MMPTE_HARDWARE _MMPFN _MMVAD _MMVAD_SHORT _RTL_AVL_TREE _RTL_BALANCED_NODE',
  '_CONTROL_AREA _SEGMENT _SUBSECTION',
].flatMap((line) => line.split(' '));

/** First RVA of the writable part of the image in the supported builds (`.data` and what follows it). */
const DATA_RVA = 0xc00000;

/** Functions that have a plain name with one of the kernel's component prefixes. */
const FUNCTION = /^(?:Ki|Ke|Kd|Ps|Ex|Mm)[A-Z][A-Za-z0-9]*$/;

/** A plain C name of the kernel: not a C++ one, a string constant, nor a compiler helper. */
const PLAIN = /^[A-Z][A-Za-z0-9_]*$/;

/** What the shipped profiles hold: every plain-named global, and the functions that people know by name. */
export const defaultSelection: ProfileSelection = {
  structs: STRUCTS,
  symbol: (name, rva) => (rva >= DATA_RVA ? PLAIN : FUNCTION).test(name),
};
